"""One epoch with frozen batch norm, as a program for torchrun: `frozen.py PICTURES OUT`; the first process saves."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from tiny import TINY

from tinyres.progress import Silent
from tinyres.training import launch
from tinyres.training.distributed import joined
from tinyres.training.trainer import Trainer


def main() -> None:
    pictures, out = sys.argv[1], Path(sys.argv[2])
    request = launch.Request(data=pictures, recipe="demo", assignments=("image_size=16", "blocks=1,1", "widths=8,16"))
    with joined() as world:
        started = launch.begin(request, None, runs=out, world=world, progress=Silent())
        config = replace(started.config, recipe=replace(TINY, lr=0.05, warmup_epochs=0.0))
        trainer = Trainer(started.run, config, started.dataset, world=world, progress=Silent())
        trainer.prepare()
        trainer.model.eval()
        trainer.forward.train = lambda mode=True: trainer.forward  # type: ignore[method-assign, assignment]
        for _ in range(trainer.batches.per_epoch):
            trainer.train_step()
        sums = trainer.sums.over(world)
        if world.is_first:
            seen = {"pictures": sums.images, "loss": sums.mean_loss(), "weights": trainer.model.state_dict()}
            torch.save(seen, out / "seen.pt")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a process that is done ("terminate called ...")
