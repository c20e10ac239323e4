"""Summaries of latency samples. Each says no more than its samples carry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CONFIDENCE = 0.95
STUDENT_T: tuple[float, ...] = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055)
STUDENT_T += (3.012, 2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845, 2.831, 2.819, 2.807, 2.797, 2.787, 2.779, 2.771)
STUDENT_T += (2.763, 2.756, 2.750)
"""The 99.5 % quantile for 1, 2, ... degrees of freedom: a table compares many, and chance should not rank them."""
NORMAL = 2.576
"""For more."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """A percentile with its 95 % interval, which no assumption about the distribution went into."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """How one contender's median compares with another's."""

    value: float
    low: float
    high: float
    """99 % interval."""

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.low > 1 or self.high < 1


def quantile(samples: Sequence[float], share: float) -> Quantile | None:
    """The `share` quantile between two of the samples that hold it with 95 % confidence; None if none are that far out.

    How many samples lie below the true quantile is binomial, whatever the distribution: that picks the two.
    """
    count = len(samples)
    below = binomial_distribution(count, share)
    tail = (1 - CONFIDENCE) / 2
    low = int(np.searchsorted(below, tail, side="right"))  # so many below it, or fewer, has a chance of `tail` at most
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    if low < 1 or high > count:
        return None
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    return Quantile(float(np.quantile(ordered, share)), float(ordered[low - 1]), float(ordered[high - 1]))


def binomial_distribution(count: int, share: float) -> NDArray[np.float64]:
    """(count + 1,) the chance of at most 0, 1, ... successes in `count` trials."""
    numbers = range(count + 1)
    total = math.lgamma(count + 1)
    logs = [total - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in numbers]
    weights = [k * math.log(share) + (count - k) * math.log1p(-share) for k in numbers]
    return np.cumsum(np.exp(np.add(logs, weights)))


def median(samples: Sequence[float]) -> float:
    """The middle sample."""
    return float(np.median(samples))


def speedup(blocks: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> Ratio:
    """How many times faster `blocks` is than `baseline`, by medians; block i of both was measured in the same round.

    Rounds are what was repeated: neighbouring runs share the machine's mood, which the interval must not take for
    agreement, and so do neighbouring blocks, which cancels in their ratio. Hence Student's t over the rounds' ratios.
    """
    rounds = [math.log(median(theirs) / median(ours)) for ours, theirs in zip(blocks, baseline, strict=True)]
    if len(rounds) < 2:
        return Ratio(math.exp(rounds[0]), 0.0, math.inf)
    middle, half = float(np.mean(rounds)), float(np.std(rounds, ddof=1)) / math.sqrt(len(rounds))
    return _ratio(middle, half, len(rounds) - 1)


def change(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> Ratio:
    """How many times faster `after` is than `before`, by medians of blocks that nothing pairs: measured on two days.

    Welch's interval (1947) over the logarithms of the blocks' medians. What differs between the days and not within
    them is in neither.
    """
    old, new = (np.log([median(block) for block in blocks]) for blocks in (before, after))
    middle = float(old.mean() - new.mean())
    if min(len(old), len(new)) < 2:
        return Ratio(math.exp(middle), 0.0, math.inf)
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (old, new)]
    weights = [part**2 / (len(values) - 1) for part, values in zip(parts, (old, new), strict=True)]
    freedom = int(sum(parts) ** 2 / sum(weights)) if sum(weights) > 0 else len(old) + len(new) - 2
    return _ratio(middle, math.sqrt(sum(parts)), max(freedom, 1))


def _ratio(middle: float, error: float, freedom: int) -> Ratio:
    """From a logarithm and its standard error."""
    half = error * (STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else NORMAL)
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))
