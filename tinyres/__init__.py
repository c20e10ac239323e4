"""Train a small image classifier, export it with a proof that it answers like the checkpoint, and run it anywhere.

The names below are the public interface. They load on first use, so that `import tinyres` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyres.errors import TinyresError
    from tinyres.runtime import Classifier, Prediction, Runner, open_runner
    from tinyres.spec import ModelSpec, Preprocess

__version__ = "0.1.0"
__all__ = ["Classifier", "ModelSpec", "Prediction", "Preprocess", "Runner", "TinyresError", "open_runner"]

_HOMES = {
    "Classifier": "tinyres.runtime",
    "ModelSpec": "tinyres.spec",
    "Prediction": "tinyres.runtime",
    "Preprocess": "tinyres.spec",
    "Runner": "tinyres.runtime",
    "TinyresError": "tinyres.errors",
    "open_runner": "tinyres.runtime",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinyres' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
