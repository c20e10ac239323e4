"""How far an artifact of each precision may be from its checkpoint. Recorded with every result that they judged."""

from __future__ import annotations

from dataclasses import dataclass, replace


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
    numeric_share: float = 0.0
    """Error against float64 that is allowed in any case, as a share of the signal."""
    rounded: bool = False
    """To eight bits, which is an error by design: some classes change, and a value at the edge of a step falls to
    either side of it from one machine to the next."""

    def on_drawn(self) -> Limits:
        """For pictures that are drawn, since no data was at hand.

        A network is less sure of them, so that more classes change by rounding alone.
        """
        return replace(self, agreement=round(1 - DRAWN * (1 - self.agreement), 6))

    def largest_error(self, floor: float) -> float:
        """The largest error against float64, as a share of the signal, where float32 itself differs by `floor`."""
        return max(self.numeric_floors * floor, self.numeric_share)


DRAWN = 4
"""So many times as many classes may change: docs/decisions/0014-limits-of-half-precision.md."""
FP32 = Limits(numeric_floors=20, agreement=1.0, accuracy_drop=0.0, images=128)
# Three times the worst correct conversion of the trained nano, and below what the next coarser precision differs by:
# results/limits/nano.json, docs/decisions/0014-limits-of-half-precision.md.
FP16 = Limits(numeric_floors=20, numeric_share=4.6e-3, agreement=0.995, accuracy_drop=0.002, images=512)
BF16 = Limits(numeric_floors=20, numeric_share=4.1e-2, agreement=0.965, accuracy_drop=0.005, images=512)
INT8 = Limits(numeric_floors=0, rounded=True, agreement=0.95, accuracy_drop=0.01, images=2000)
INT8_HEADROOM = 4
"""The largest numeric error of int8 is that of its own calibration, on pictures held out, so many times: what is more
is no rounding, but another network, another preprocessing or another arithmetic."""
