"""What a file is, what this machine can do, and all of tinyres at once."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tinyres.cli.benching import bench
from tinyres.cli.command import command
from tinyres.cli.exporting import export
from tinyres.cli.models import predict
from tinyres.cli.root import RUNS, Cache, Runs, app
from tinyres.cli.training import train
from tinyres.console import Console, shell_line
from tinyres.errors import missing_extra


@command(
    app,
    examples=(
        ("a run", "tinyres info runs/nano-1"),
        ("an exported file", "tinyres info runs/nano/export/fp32.onnx"),
        ("its proof", "tinyres info runs/nano/export/fp32.onnx.json"),
    ),
)
def info(
    out: Console, path: Annotated[Path, typer.Argument(help="A run, cache, checkpoint, artifact or record.")]
) -> None:
    """Say what a file or folder is."""
    out.log(f"reading {path}")
    from tinyres.describe import describe

    if not path.exists() and (RUNS / path / "config.json").is_file():
        path = RUNS / path  # a run by its name
    found = describe(path)
    out.result(found, f"{path}: {found.kind}\n{found.text()}", *_after_info(found.kind, path))


def _after_info(kind: str, path: Path) -> list[str]:
    """What one does with such a thing; nothing where there is no usual thing."""
    run = path if path.is_dir() else path.parent
    artifact = path.with_name(re.sub(r"\.json$|\.golden\.\w+$", "", path.name))
    words: dict[str, tuple[object, ...]] = {
        "run": ("export", run),
        "state of a run": ("info", run),
        "environment of a run": ("info", run),
        "training history": ("plot", run if (run / "config.json").is_file() else path),
        "checkpoint": ("eval", path),
        "training state, to resume from": ("train", "--resume", run),
        "ONNX artifact": ("verify", artifact),
        "TensorRT engine": ("verify", artifact),
        "certificate": ("verify", artifact),
        "golden vectors for other languages": ("verify", artifact),
        "golden vectors (drawn pictures)": ("verify", artifact),
        "bench results": ("bench", "--against", path),
    }
    if words.get(kind, ("",))[0] == "verify" and not artifact.with_name(f"{artifact.name}.json").is_file():
        return [f"put what the export wrote beside it here too: all that begins with {artifact.name}"]
    return [shell_line(*words[kind])] if kind in words else []


@command(
    app,
    examples=(
        ("this machine", "tinyres doctor"),
        ("with the cache and the runs elsewhere", "tinyres doctor --cache /scratch/cache --runs /scratch/runs"),
    ),
)
def doctor(out: Console, runs: Runs = RUNS, cache: Cache = None) -> int:
    """What this machine can do, what is missing, and the command that mends it; exit code 1 if something is wrong."""
    out.log("looking at this machine")
    from tinyres.doctor import describe, examine

    findings = examine(cache, runs)
    problems = [found for found in findings if found.state == "problem"]
    next_ = shell_line("demo") if find_spec("torch") else "tinyres verify FILE.onnx"  # nothing trains here
    text = describe(findings, min(shutil.get_terminal_size().columns, 120))
    out.result(findings, text, "mend what is marked FIX" if problems else next_)
    return 1 if problems else 0


@command(
    app,
    examples=(
        ("all of it", "tinyres demo"),
        ("then look at what it made", "tinyres info runs/demo"),
        ("and classify a picture with it", "tinyres predict runs/demo/star.png --model demo"),
    ),
)
def demo(out: Console, runs: Runs = RUNS, cache: Cache = None) -> int:
    """All of it in minutes: train on drawn shapes, export, prove, bench and predict, into runs/demo."""
    if find_spec("torch") is None:
        raise missing_extra("the demo, which trains,", "torch", "all-cpu")
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
