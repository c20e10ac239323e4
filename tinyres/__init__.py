"""Train a small image classifier, export it with a proof that it answers like the checkpoint, and run it anywhere.

The names below are the public interface. They load on first use, so that `import tinyres` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyres.api import benchmark, compare, evaluate, export_model, plot, train, verify
    from tinyres.errors import TinyresError
    from tinyres.runs import Run
    from tinyres.runtime import Classifier, Prediction, Runner, open_runner
    from tinyres.spec import ModelSpec, Preprocess

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "ModelSpec",
    "Prediction",
    "Preprocess",
    "Run",
    "Runner",
    "TinyresError",
    "benchmark",
    "compare",
    "evaluate",
    "export_model",
    "open_runner",
    "plot",
    "train",
    "verify",
]

_HOMES = {
    "Classifier": "tinyres.runtime",
    "ModelSpec": "tinyres.spec",
    "Prediction": "tinyres.runtime",
    "Preprocess": "tinyres.spec",
    "Run": "tinyres.runs",
    "Runner": "tinyres.runtime",
    "TinyresError": "tinyres.errors",
    "open_runner": "tinyres.runtime",
}
"""Where a name is kept; the others are in `tinyres.api`."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'tinyres' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "tinyres.api")), name)


def __dir__() -> list[str]:
    """What a notebook completes: the names that have not loaded yet too."""
    return sorted({*globals(), *__all__})
