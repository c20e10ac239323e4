"""What a checkpoint says of itself, beside its tensors. Readable without PyTorch."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyres.harmless import require_shown
from tinyres.spec import ModelSpec

if TYPE_CHECKING:
    from typing import BinaryIO

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

    def __post_init__(self) -> None:
        require_shown(self.run, self.recipe, self.data_kind, self.selected_on)


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """The JSON in a checkpoint's header."""

    spec: ModelSpec
    origin: Origin


MAX_BYTES = 16 * 2**20
"""A longer header is none of ours: 100,000 class names take 4 MB. JSON takes up to thirty times its size in memory."""


def read_header(file: BinaryIO) -> tuple[str, list[str]] | None:
    """Our text in a safetensors file's header, and the names of its tensors; None if it is no such file.

    The format: the header's length in eight bytes, little-endian, then the header as JSON, then the tensors.
    """
    start = file.read(8)
    if len(start) < 8 or struct.unpack("<Q", start)[0] > MAX_BYTES:
        return None
    try:
        header: Any = json.loads(file.read(struct.unpack("<Q", start)[0]))
    except (ValueError, RecursionError):
        return None
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    return (text, list(header)) if isinstance(text, str) else None
