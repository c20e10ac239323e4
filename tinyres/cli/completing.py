"""What the shell offers after Tab where an argument is no file: names of models, runs and recipes, and fixed choices.

It reads names of folders and nothing else, since it runs at every key press, and where it finds nothing, or fails, it
offers nothing: the shell then completes files.
"""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import typer

Completer = Callable[[typer.Context, str], list[str]]

FORMATS = ("onnx", "trt", "triton")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TARGETS = ("cpu", "cuda", "tensorrt")
RUNTIMES = ("auto", "trt", "rtx")
SPLITS = ("val", "holdout")
AXES = ("epochs", "minutes")
DATA = ("tiny-imagenet", "shapes")
EXAMPLES = ("python", "node", "browser", "cpp", "ray")
"""As in `export.example`, which takes numpy to import; a test holds the two together."""
BACKENDS = (
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "pytorch",
)
"""As in `runtime.backends`; likewise."""


def offer(choices: Iterable[str]) -> Completer:
    """Fixed choices."""
    known = tuple(choices)

    def offered(context: typer.Context, incomplete: str) -> list[str]:
        return _starting(incomplete, known)

    return offered


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Names of runs and of the weights that ship."""
    from tinyres import weights

    return _starting(incomplete, (*_run_names(context), *weights.names()))


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Names of runs."""
    return _starting(incomplete, _run_names(context))


def recipes(incomplete: str) -> list[str]:
    """Names of recipes."""
    from tinyres.recipes import RECIPES

    return _starting(incomplete, RECIPES)


def backends(incomplete: str) -> list[str]:
    """The next of the names between commas; each is offered once."""
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{name}" for name in _starting(last, BACKENDS) if name not in given]


def _run_names(context: typer.Context) -> list[str]:
    with suppress(Exception):  # whatever is wrong with a folder, the command itself says it better
        home = Path(context.params.get("runs") or "runs")
        return sorted(config.parent.name for config in home.glob("*/config.json"))
    return []


def _starting(typed: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(typed)]
