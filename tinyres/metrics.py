"""Accuracy from logits, as counts, with intervals that say how little a small sample tells.

Counts are summed and divided once. It holds no timing statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.spec import ModelSpec

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution, for two-sided 95 % intervals."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of `images` were right."""

    images: int
    correct: int
    """Top-1."""
    correct_top5: int
    low: float
    """Lower end of the 95 % Wilson interval of top-1."""
    high: float

    @property
    def top1(self) -> float:
        """Share of images whose best class is right, 0..1."""
        return self.correct / self.images

    @property
    def top5(self) -> float:
        """Share of images whose class is among the best five, 0..1."""
        return self.correct_top5 / self.images


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class of a judgement."""

    id: str
    name: str
    images: int
    correct: int
    mistaken_for: str
    """The class most often answered instead, or empty."""


def accuracy_of(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Accuracy:
    """Count right answers; `logits` (N, C), `labels` (N,). Errors: ValueError for no images, unequal counts or NaN."""
    if len(logits) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(logits)} rows of logits and {len(labels)} labels; valid: equal, at least 1")
    if not np.isfinite(logits).all():
        raise ValueError("the logits hold NaN or infinity: which class is best is not known")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    hits = best == labels[:, None]
    correct = int(hits[:, 0].sum())
    low, high = wilson_interval(correct, len(labels))
    return Accuracy(images=len(labels), correct=correct, correct_top5=int(hits.any(axis=1).sum()), low=low, high=high)


def cross_entropy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean cross entropy of logits (N, C) and labels (N,)."""
    return float(-np.log(_softmax(logits)[np.arange(len(labels)), labels].clip(min=1e-300)).mean())


def calibration_error(logits: NDArray[np.floating], labels: NDArray[np.integer], *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence is from accuracy, over bins of confidence."""
    probabilities = _softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def confusion_of(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Counts (C, C): row the true class, column the answered one."""
    classes = logits.shape[1]
    return np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson 1927): honest for few trials and near 0 and 1."""
    share = successes / trials
    center = share + Z95**2 / (2 * trials)
    spread = Z95 * math.sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2))
    scale = 1 + Z95**2 / trials
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def paired_interval(gained: int, lost: int, trials: int) -> tuple[float, float, float]:
    """The difference of two paired accuracies and its 95 % interval: (difference, low, high), in shares.

    `gained` images only the second answers rightly, `lost` only the first. Agresti and Min's adjustment (2005) of
    Wald's interval adds half a count to every cell, so that few or no changes still give an interval of some width.
    """
    total = trials + 2
    adjusted = (gained - lost) / total
    variance = ((gained + 0.5) + (lost + 0.5) - (gained - lost) ** 2 / total) / total**2
    spread = Z95 * math.sqrt(variance)
    return (gained - lost) / trials, max(-1.0, adjusted - spread), min(1.0, adjusted + spread)


def class_results(confusion: NDArray[np.int64], spec: ModelSpec) -> tuple[ClassResult, ...]:
    """One row a class from a confusion matrix (C, C) of true and answered classes, the hardest first.

    Hardest is by the upper end of the 95 % interval: one wrong answer to one picture says little of a class.
    """
    rows = []
    for index, counts in enumerate(confusion):
        others = counts.copy()
        others[index] = 0
        mistaken = spec.class_names[int(others.argmax())] if others.any() else ""
        correct = int(counts[index])
        rows.append(ClassResult(spec.class_ids[index], spec.class_names[index], int(counts.sum()), correct, mistaken))
    return tuple(sorted(rows, key=lambda row: wilson_interval(row.correct, row.images)[1] if row.images else 1.0))
