"""How far an artifact of each precision may be from its checkpoint. Recorded with every result that they judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one precision."""

    numeric_floors: float
    """Error against float64, in multiples of what float32 itself differs by."""
    agreement: float
    """Least share of images with the same best class."""
    accuracy_drop: float
    """Largest loss of top-1 accuracy, as a share."""
    images: int
    """Judged on so many by default."""


FP32 = Limits(numeric_floors=20, agreement=1.0, accuracy_drop=0.0, images=128)
