"""What users ask of an export, checked: batches, and how int8 is calibrated."""

from __future__ import annotations

from dataclasses import dataclass

from tinyres.errors import UsageError
from tinyres.runtime.metadata import Target

MAX_BATCH = 4096
DEFAULT_BATCHES = (1, 32, 256)
"""Least, usual, most."""
EXAMPLES = {":": "for example --batch 1:32:256", ",": "for example --batch 1,32"}
LEAST_IMAGES = 32
"""Fewer pictures set no range to rely on."""


@dataclass(frozen=True, slots=True)
class Int8Options:
    """How a network becomes int8. Errors: UsageError for values out of range."""

    target: Target = "cpu"
    images: int = 512
    """Training pictures that the ranges are measured on."""
    reduced: bool = False
    """Weights in seven bits, for processors without VNNI."""
    most_drop: float | None = None
    """Top-1 accuracy that may be lost, as a share: layers go back to float32 until it holds. None: the usual limit."""

    def __post_init__(self) -> None:
        if self.images < LEAST_IMAGES:
            raise UsageError(f"--calibration-images {self.images}: valid: {LEAST_IMAGES} or more")
        if self.most_drop is not None and not 0 <= self.most_drop < 1:
            raise UsageError(f"--max-accuracy-drop {self.most_drop * 100:g}: valid: points from 0 to less than 100")
        if self.reduced and self.target != "cpu":
            raise UsageError("--reduced-range is for processors, not GPUs", hint="leave it out, or --target cpu")


def parse_batches(text: str) -> tuple[int, int, int]:
    """`least:usual:most` as three rising numbers. Errors: UsageError."""
    sizes = _numbers(text, ":")
    if len(sizes) != 3 or sorted(sizes) != list(sizes):
        raise UsageError(f"--batch {text!r}: expected least:usual:most, rising", hint=EXAMPLES[":"])
    least, usual, most = sizes
    return least, usual, most


def parse_sizes(text: str) -> tuple[int, ...]:
    """Batch sizes with commas, sorted and without repeats. Errors: UsageError."""
    return tuple(sorted(set(_numbers(text, ","))))


def _numbers(text: str, separator: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(separator)]
    if not all(word.isascii() and word.isdigit() and len(word) < 5 and 1 <= int(word) <= MAX_BATCH for word in words):
        raise UsageError(f"--batch {text!r}: batches are whole numbers from 1 to {MAX_BATCH}", hint=EXAMPLES[separator])
    return tuple(int(word) for word in words)
