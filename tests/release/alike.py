"""A training with all its draws and the export of its best weights, as a program: `alike.py PICTURES RUNS SEED`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tiny import TINY

from tinyres.export.pipeline import export_onnx
from tinyres.progress import Silent
from tinyres.training import launch
from tinyres.training.train import train

RECIPE = replace(
    TINY,
    dropout=0.2,
    ema_epochs=0.5,
    flip="alternating",
    trivial_augment=True,
    random_erasing=0.25,
    mix_share=0.5,
    mixup=0.2,
    cutmix=1.0,
    start_scale=0.5,
    grow=(0.2, 0.6),
)
NAME = "alike"


def main() -> None:
    pictures, runs, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    started = launch.new_run(pictures, RECIPE, runs=runs, name=NAME, seed=seed, progress=Silent())
    train(started.run, started.config, started.dataset, progress=Silent())
    target = started.run.path / "export" / "fp32.onnx"
    export_onnx(started.run.best, target, dataset=started.dataset, batches=(1, 4, 9), progress=Silent())


if __name__ == "__main__":
    main()
