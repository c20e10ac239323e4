"""Summaries of latency samples. Each says no more than its samples carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000
TAIL_SAMPLES = 5
"""A percentile needs at least so many samples beyond it."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How one contender's median compares with another's."""

    value: float
    low: float
    high: float
    """95 % block-bootstrap interval."""

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low > 1 or self.high < 1


def percentile(samples: Sequence[float], share: float) -> float | None:
    """The `share` quantile, or None if too few samples lie beyond it to know."""
    if len(samples) * min(share, 1 - share) < TAIL_SAMPLES:
        return None
    return float(np.quantile(samples, share))


def median(samples: Sequence[float]) -> float:
    """The middle sample."""
    return float(np.median(samples))


def speedup(blocks: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> Ratio:
    """How many times faster `blocks` is than `baseline`, by medians.

    Whole blocks are drawn again, then samples within them: neighbouring runs share the machine's mood, and the
    interval must not take them for independent.
    """
    rng = np.random.default_rng(0)
    ours, theirs = (_resampled_medians(group, rng) for group in (blocks, baseline))
    low, high = np.quantile(theirs / ours, (0.025, 0.975))
    value = median([s for block in baseline for s in block]) / median([s for block in blocks for s in block])
    return Ratio(value, float(low), float(high))


def _resampled_medians(blocks: Sequence[Sequence[float]], rng: np.random.Generator) -> NDArray[np.float64]:
    arrays = [np.asarray(block) for block in blocks if len(block)]
    medians = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        chosen = rng.integers(0, len(arrays), len(arrays))
        drawn = [arrays[block][rng.integers(0, len(arrays[block]), len(arrays[block]))] for block in chosen]
        medians[index] = np.median(np.concatenate(drawn))
    return medians
