"""What a file is, what this machine can do, and all of tinyres at once."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tinyres.cli.benching import bench
from tinyres.cli.command import command
from tinyres.cli.exporting import export
from tinyres.cli.models import predict
from tinyres.cli.root import RUNS, Cache, Runs, app
from tinyres.cli.training import train
from tinyres.console import Console


@command(app)
def info(
    out: Console, path: Annotated[Path, typer.Argument(help="A run, cache, checkpoint, artifact or record.")]
) -> None:
    """Say what a file or folder is."""
    out.log(f"reading {path}")
    from tinyres.describe import describe

    found = describe(path)
    out.result(found, f"{path}: {found.kind}\n{found.text()}")


@command(app)
def doctor(out: Console, runs: Runs = RUNS, cache: Cache = None) -> int:
    """What this machine can do, what is missing, and the command that mends it; exit code 1 if something is wrong."""
    from tinyres.doctor import describe, examine

    findings = examine(cache, runs)
    out.result(findings, describe(findings, min(shutil.get_terminal_size().columns, 120)))
    return 1 if any(found.state == "problem" for found in findings) else 0


@command(app)
def demo(out: Console, runs: Runs = RUNS, cache: Cache = None) -> int:
    """All of it in minutes: train on drawn shapes, export, prove, bench and predict, into runs/demo."""
    from tinyres.cli.demo import draw_star, walk
    from tinyres.files import remove
    from tinyres.runs import DEMO_RUN

    remove(home := runs / DEMO_RUN)
    steps: dict[str, Callable[[], int | None]] = {
        "train a small network on drawn shapes": lambda: train(
            out, data="shapes", recipe="demo", name=DEMO_RUN, runs=runs, cache=cache
        ),
        "export it to ONNX and prove that it answers alike": lambda: export(out, DEMO_RUN, runs=runs, cache=cache),
        "measure PyTorch and ONNX Runtime side by side": lambda: bench(
            out, DEMO_RUN, quick=True, runs=runs, cache=cache
        ),
        "classify a picture without PyTorch": lambda: predict(
            out, [str(draw_star(home / "star.png"))], DEMO_RUN, top=3, runs=runs
        ),
    }
    return walk(out, home, steps)
