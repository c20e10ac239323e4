"""A training stopped inside its first epoch, resumed and stopped at once, as a program for torchrun: PICTURES OUT."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tiny import StopAfter

from tinyres.progress import Silent
from tinyres.training import launch
from tinyres.training.distributed import joined
from tinyres.training.train import Loop
from tinyres.training.trainer import Trainer


def main() -> None:
    pictures, out = sys.argv[1], Path(sys.argv[2])
    sizes = ("image_size=16", "blocks=1,1", "widths=8,16", "batch_size=16")
    request = launch.Request(data=pictures, recipe="demo", assignments=sizes, name="run")
    with joined() as world:
        started = launch.begin(request, None, runs=out, world=world, progress=Silent())
        for steps in (2, 0):
            trainer = Trainer(started.run, started.config, started.dataset, world=world, progress=Silent())
            if steps == 0:
                trainer.restore()
            trainer.prepare()
            # Only one process gets the signal: the others stop at the same step.
            Loop(trainer).run(StopAfter(steps if world.is_first else 1000))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a process that is done ("terminate called ...")
