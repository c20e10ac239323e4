"""What users write for batches, as numbers."""

from __future__ import annotations

from tinyres.errors import UsageError

MAX_BATCH = 4096
DEFAULT_BATCHES = (1, 32, 256)
"""Least, usual, most."""


def parse_batches(text: str) -> tuple[int, int, int]:
    """`least:usual:most` as three rising numbers. Errors: UsageError."""
    sizes = _numbers(text, ":")
    if len(sizes) != 3 or sorted(sizes) != list(sizes):
        raise UsageError(f"--batch {text!r}: expected least:usual:most, rising", hint="for example 1:32:256")
    least, usual, most = sizes
    return least, usual, most


def parse_sizes(text: str) -> tuple[int, ...]:
    """Batch sizes with commas, sorted and without repeats. Errors: UsageError."""
    return tuple(sorted(set(_numbers(text, ","))))


def _numbers(text: str, separator: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(separator)]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= MAX_BATCH for word in words):
        raise UsageError(f"--batch {text!r}: batches are whole numbers from 1 to {MAX_BATCH}")
    return tuple(int(word) for word in words)
