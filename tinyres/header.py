"""What a checkpoint says of itself, beside its tensors. Readable without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from tinyres.spec import ModelSpec

KEY = "tinyres"
"""Of the one metadata entry in the file."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights come from."""

    run: str
    recipe: str
    data_kind: str
    """As in the cache's manifest; `shapes` marks a toy, `unknown` an import."""
    data_fingerprint: str
    epoch: int
    """Finished epochs."""
    step: int
    """Optimizer steps."""
    selected_on: str
    """The split that chose these weights (val, holdout), or `none` for the last epoch's."""


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """The JSON in a checkpoint's header."""

    spec: ModelSpec
    origin: Origin
