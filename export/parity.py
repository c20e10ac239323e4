"""The proof's levels: each compares one aspect of an artifact's answers with its checkpoint's, and fails closed.

A level gets arrays and returns a Level; it opens nothing and decides no exit code. Equal counts are required, NaN is a
failure, and what was not measured has not passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyres.export.certificate import Flip, Level
from tinyres.metrics import paired_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tinyres.export.limits import Limits

REFERENCE_IMAGES = 128
"""The float64 reference is over so many images."""
FLOOR_LIMIT = 1e-4
"""A checkpoint whose float32 differs from float64 by more has no float32 accuracy to be faithful to."""
TIE_FLOORS = 4
"""Two classes are tied if their logits are closer than this many times the largest deviation of float32 from float64:
two float32 programs may both be off by one on both logits."""
GOLDEN_SIGNAL = 0.05
"""The golden pictures must carry this share of the real images' signal, or they could not show an error."""
MOST_ROUNDED = 0.25
"""Whatever its error, two runs of an int8 artifact may not differ by more of the signal than this."""
EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checkpoint answers, over images that every level shares."""

    images: NDArray[np.uint8]
    """(N, S, S, 3)"""
    labels: NDArray[np.int64] | None
    """(N,), or None for generated images, which prove no accuracy."""
    checkpoint: NDArray[np.float32]
    """(N, C) logits of the checkpoint in float32."""
    exact_rows: NDArray[np.int64]
    """(K,) which images the exact logits belong to."""
    exact: NDArray[np.float64]
    """(K, C) logits of the checkpoint in float64."""

    @property
    def signal(self) -> float:
        """RMS of the logits' deviation from their mean over the images: the part that depends on the image at all."""
        return rms(self.exact - self.exact.mean(axis=0)) if len(self.exact) else float("nan")

    @property
    def floor(self) -> float:
        """What float32 differs from float64 by, as a share of the signal; infinite without a signal."""
        return share(rms(self.checkpoint[self.exact_rows] - self.exact), self.signal)

    def error(self, answers: NDArray[np.float32]) -> float:
        """What `answers` (N, C) differ from float64 by, as a share of the signal."""
        return share(rms(answers[self.exact_rows] - self.exact), self.signal)

    @property
    def tie_margin(self) -> float:
        """Logit margins up to this decide nothing."""
        deviation = np.abs(self.checkpoint[self.exact_rows] - self.exact).max(initial=0.0)
        smallest = EPSILON * np.abs(self.exact).max(initial=0.0)  # a lucky floor of 0 still leaves rounding
        return float(TIE_FLOORS * max(deviation, smallest))


def rms(values: NDArray[np.floating]) -> float:
    """Root of the mean square; NaN for an empty array, so that nothing passes on it."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else float("nan")


def share(part: float, whole: float) -> float:
    """Part / whole, infinite where the whole is not positive."""
    return part / whole if whole > 0 else float("inf")


def numeric(evidence: Evidence, answers: NDArray[np.float32], limits: Limits) -> Level:
    """The error against float64 as a share of the signal."""
    if answers.shape != evidence.checkpoint.shape:
        return Level.failed("numeric", f"{answers.shape} logits for {evidence.checkpoint.shape}")
    rows = answers[evidence.exact_rows]
    error = evidence.error(answers)
    limit = limits.largest_error(evidence.floor)
    measured = {
        "error": error,
        "floor": evidence.floor,
        "signal": evidence.signal,
        "max_abs": float(np.abs(rows - evidence.exact).max(initial=0.0)),
    }
    if not np.isfinite(answers).all():
        bad = int((~np.isfinite(answers).all(axis=1)).sum())
        return Level.judged(
            "numeric", False, measured, {"error": limit}, f"{bad} of {len(answers)} answers are not finite"
        )
    if not evidence.signal > 0:
        return Level.judged(
            "numeric", False, measured, {"error": limit}, "the checkpoint answers alike for every image"
        )
    passed = error <= limit and evidence.floor <= FLOOR_LIMIT
    detail = f"error {error:.2e} of the signal, "
    detail += f"limit {limit:.1e}" if limits.numeric_share else f"{share(error, evidence.floor):.1f} floors"
    if evidence.floor > FLOOR_LIMIT:
        detail += f"; the floor itself is {evidence.floor:.1e}"
    return Level.judged("numeric", passed, measured, {"error": limit, "floor": FLOOR_LIMIT}, detail)


def largest_difference(evidence: Evidence, answers: NDArray[np.float32], limits: Limits) -> float:
    """How far two runs of an artifact that gave `answers` (N, C) may differ, as a share of the signal.

    Rounded to eight bits, that is by no more than from the checkpoint itself.
    """
    if limits.rounded:
        return min(evidence.error(answers), MOST_ROUNDED)
    return limits.largest_error(max(evidence.floor, EPSILON))


def find_flips(evidence: Evidence, answers: NDArray[np.float32]) -> list[Flip]:
    """The images that artifact and checkpoint put into different classes, ties marked."""
    ours, theirs = evidence.checkpoint.argmax(axis=1), answers.argmax(axis=1)
    flips = []
    for index in np.flatnonzero(ours != theirs):
        row = evidence.checkpoint[index].astype(np.float64)
        margin = float(row[ours[index]] - row[theirs[index]])
        label = None if evidence.labels is None else int(evidence.labels[index])
        tie = margin <= evidence.tie_margin
        shown = margin if np.isfinite(margin) else None
        flips.append(Flip(int(index), label, int(ours[index]), int(theirs[index]), shown, tie))
    return flips


def decision(evidence: Evidence, answers: NDArray[np.float32], limits: Limits) -> Level:
    """The share of images with the same best class; ties do not count either way."""
    if answers.shape != evidence.checkpoint.shape or not len(answers) or not np.isfinite(answers).all():
        return Level.failed("decision", "no complete set of finite answers to compare")
    flips = find_flips(evidence, answers)
    ties = sum(flip.tie for flip in flips)
    judged = len(answers) - ties
    same = judged - (len(flips) - ties)
    measured = {"images": len(answers), "flips": len(flips) - ties, "ties": ties, "agreement": share(same, judged)}
    detail = f"{same} of {judged} images get the same class" + (f", {ties} ties left out" if ties else "")
    passed = judged > 0 and same / judged >= limits.agreement
    return Level.judged("decision", passed, measured, {"agreement": limits.agreement}, detail)


def accuracy(evidence: Evidence, answers: NDArray[np.float32], limits: Limits) -> Level:
    """The loss of top-1 accuracy on labelled images, with its paired 95 % interval."""
    if evidence.labels is None:
        return Level.judged("accuracy", None, {}, {"drop": limits.accuracy_drop}, "not proven: no data with labels")
    if answers.shape != evidence.checkpoint.shape or not len(answers) or not np.isfinite(answers).all():
        return Level.failed("accuracy", "no complete set of finite answers to compare")
    flips = find_flips(evidence, answers)
    tied = np.zeros(len(answers), dtype=bool)
    tied[[flip.image for flip in flips if flip.tie]] = True
    ours = (evidence.checkpoint.argmax(axis=1) == evidence.labels)[~tied]
    theirs = (answers.argmax(axis=1) == evidence.labels)[~tied]
    if not len(ours):
        return Level.failed("accuracy", "every image is a tie")
    gained, lost = int((theirs & ~ours).sum()), int((ours & ~theirs).sum())
    difference, low, high = paired_interval(gained, lost, len(ours))
    measured = {
        "images": len(ours),
        "checkpoint": float(ours.mean()),
        "artifact": float(theirs.mean()),
        "difference": difference,
        "low": low,
        "high": high,
    }
    detail = f"{theirs.mean():.2%} against {ours.mean():.2%}: {difference * 100:+.2f} pt"
    detail += f" (95 %: {low * 100:+.2f} to {high * 100:+.2f})"
    return Level.judged(
        "accuracy", -difference <= limits.accuracy_drop, measured, {"drop": limits.accuracy_drop}, detail
    )


def consistency(
    evidence: Evidence,
    answer: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    answers: NDArray[np.float32],
    batches: tuple[int, ...],
    limits: Limits,
) -> Level:
    """Each image's logits whatever its batch and neighbours: every batch size, rows permuted and repeated.

    `answers` (N, C) came from one batch size; `answer` runs the artifact again.
    """
    limit = largest_difference(evidence, answers, limits)
    rng = np.random.default_rng(0)
    worst, worst_batch = 0.0, batches[0]
    for batch in batches:
        # A small batch is tried on several images; a large one repeats them, in an order of its own.
        for _ in range(4 if batch == 1 else 1):
            rows = rng.permutation(np.resize(rng.permutation(len(answers)), batch))
            got = answer(evidence.images[rows])
            if got.shape != (batch, answers.shape[1]) or not np.isfinite(got).all():
                return Level.failed("consistency", f"no complete set of finite answers at batch {batch}")
            row_errors = np.sqrt(np.mean(np.square(got - answers[rows], dtype=np.float64), axis=1))
            error = share(float(row_errors.max()), evidence.signal)
            if not np.isfinite(error):
                return Level.failed("consistency", f"no finite answers to compare at batch {batch}")
            if error > worst:
                worst, worst_batch = error, batch
    sizes = ", ".join(str(batch) for batch in batches)
    detail = f"batches {sizes}: rows differ by {worst:.1e} of the signal"
    if worst > limit:
        detail += f" (batch {worst_batch}): an answer depends on the batch or on its neighbours"
    return Level.judged("consistency", worst <= limit, {"worst_row": worst}, {"worst_row": limit}, detail)
