"""What the values between layers lie within, over pictures: measured once, and turned into ranges in several ways."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tinyres.errors import CheckpointError
from tinyres.export.observe import observe
from tinyres.export.quantize import Range, grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tinyres.progress import Progress

BINS = 4096
CLIPS = 81
"""Ranges tried by `least_squares`, from a fifth of the whole to the whole."""
ENTROPY_STRIDE = 16
SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each value of a tensor occurs."""

    counts: NDArray[np.float64]
    """(BINS,) from low to high."""
    low: float
    high: float
    means: NDArray[np.float64]
    """(C,) by channel."""

    def clipped(self, within: Range) -> float:
        """The share of values outside a range."""
        outside = (self.values < min(within.low, 0.0)) | (self.values > max(within.high, 0.0))
        return float(self.counts[outside].sum() / self.counts.sum())

    @property
    def values(self) -> NDArray[np.float64]:
        """(BINS,) the middle of each bin."""
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def measure(
    content: bytes, names: Sequence[str], images: NDArray[np.uint8], *, progress: Progress
) -> dict[str, Histogram]:
    """The histograms of the tensors `names` (N, C, ...) of the float32 file `content` over `images` (N, S, S, 3).

    Errors: CheckpointError if a layer answers NaN or infinity.
    """
    low = dict.fromkeys(names, np.inf)
    high = dict.fromkeys(names, -np.inf)
    sums: dict[str, NDArray[np.float64]] = {}
    for values in observe(content, names, images, title="measuring ranges", progress=progress):
        for name, value in values.items():
            low[name], high[name] = min(low[name], float(value.min())), max(high[name], float(value.max()))
            by_channel = value.reshape(*value.shape[:2], -1).mean(axis=2, dtype=np.float64).sum(axis=0)
            sums[name] = sums.get(name, 0.0) + by_channel
            if not np.isfinite(by_channel).all():
                raise CheckpointError(f"the layer {name} answers NaN or infinity: no range holds that")
    counts = {name: np.zeros(BINS) for name in names}
    for values in observe(content, names, images, title="counting values", progress=progress):
        for name, value in values.items():
            per_bin = (high[name] - low[name]) / BINS or 1.0
            bins = np.minimum(((value.ravel() - low[name]) / per_bin).astype(np.int32), BINS - 1)
            counts[name] += np.bincount(bins, minlength=BINS)
    return {name: Histogram(counts[name], low[name], high[name], sums[name] / len(images)) for name in names}


def whole(histogram: Histogram, *, symmetric: bool) -> Range:
    """From the least to the largest value: nothing is clipped."""
    del symmetric
    return Range(histogram.low, histogram.high)


def percentile(histogram: Histogram, share: float, *, symmetric: bool) -> Range:
    """What holds the `share` of all values, with as many cut off below as above."""
    del symmetric
    summed = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (1 - share) / 2
    first, last = np.searchsorted(summed, cut, side="right"), np.searchsorted(summed, 1 - cut)
    per_bin = (histogram.high - histogram.low) / BINS
    return Range(histogram.low + per_bin * float(first), min(histogram.low + per_bin * float(last + 1), histogram.high))


def least_squares(histogram: Histogram, *, symmetric: bool) -> Range:
    """The range with the least mean square of what rounding and clipping change."""
    values, best, least = histogram.values, Range(histogram.low, histogram.high), np.inf
    for part in np.linspace(0.2, 1.0, CLIPS):
        within = Range(min(histogram.low * part, 0.0), max(histogram.high * part, 0.0))
        step, zero, lowest, highest = grid(within, symmetric=symmetric)
        rounded = (np.clip(np.rint(values / step) + zero, lowest, highest) - zero) * step
        error = float((histogram.counts * (rounded - values) ** 2).sum())
        if error < least:
            best, least = within, error
    return best


def entropy(histogram: Histogram, *, symmetric: bool) -> Range:
    """The range that loses the least information (Kullback-Leibler), as TensorRT's calibrator chose it.

    Szymon Migacz, 8-bit inference with TensorRT, GTC 2017. Values of both signs share one threshold.
    """
    largest = max(abs(histogram.low), abs(histogram.high)) or 1.0
    levels = 128 if symmetric or histogram.low < 0 < histogram.high else 256
    bins = np.minimum((np.abs(histogram.values) / largest * (BINS // 2)).astype(int), BINS // 2 - 1)
    magnitudes = np.bincount(bins, histogram.counts, BINS // 2)
    magnitudes[0] = magnitudes[1]  # the zeros that Relu makes are stored exactly, whatever the range
    best, least = BINS // 2, np.inf
    for end in range(levels, BINS // 2 + 1, ENTROPY_STRIDE):
        kept = magnitudes[:end]
        clipped = kept.copy()
        clipped[-1] += magnitudes[end:].sum()
        group = np.arange(end) * levels // end
        filled = np.bincount(group, kept > 0, levels)
        spread = np.bincount(group, kept, levels) / np.maximum(filled, 1)
        rounded = np.where(kept > 0, spread[group], 0.0)
        occurs = clipped > 0
        share, other = clipped[occurs] / clipped.sum(), rounded[occurs] / max(rounded.sum(), SMALLEST)
        divergence = float((share * np.log(share / np.maximum(other, SMALLEST))).sum())
        if divergence < least:
            best, least = end, divergence
    threshold = best / (BINS // 2) * largest
    return Range(max(histogram.low, -threshold), min(histogram.high, threshold))


class Method(Protocol):
    """A way to choose a range; `symmetric` around zero, as GPUs want it, or not."""

    def __call__(self, histogram: Histogram, *, symmetric: bool) -> Range:
        """The range of a tensor."""


METHODS: dict[str, Method] = {
    "min-max": whole,
    "percentile 99.999": functools.partial(percentile, share=0.99999),
    "percentile 99.99": functools.partial(percentile, share=0.9999),
    "entropy": entropy,
    "least squares": least_squares,
}
"""All are tried; what a network answers decides."""
