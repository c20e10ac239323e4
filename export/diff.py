"""What changed between two artifacts or checkpoints: their answers to the same pictures, compared image by image."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyres.errors import UsageError
from tinyres.export import golden, parity
from tinyres.export.proof import answer_all
from tinyres.metrics import Accuracy, accuracy_of, paired_interval
from tinyres.runtime.backends import open_runner
from tinyres.spec import classes_apart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.data.dataset import Dataset
    from tinyres.export.certificate import Flip
    from tinyres.progress import Progress

BATCH = 32
SHOWN = 10
"""Flips listed for people; the JSON has all."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two models' answers compared; `a` is the first, `b` the second."""

    images: int
    source: str
    """The data's kind, or `generated`."""
    error: float | None
    """RMS of the logits' difference over the RMS of a's signal; None if a answers alike for every image."""
    max_abs: float
    flips: tuple[Flip, ...]
    """`checkpoint` is a's class, `artifact` is b's, `margin` a's logit margin between the two."""
    accuracy_a: Accuracy | None
    """None without labels."""
    accuracy_b: Accuracy | None
    change: float | None
    """b's top-1 less a's, with the paired 95 % interval."""
    low: float | None
    high: float | None

    def __repr__(self) -> str:
        change = "" if self.change is None else f", top-1 {self.change * 100:+.2f} pt"
        alike = f"same class for {self.agreement:.2%}, {len(self.flips)} flipped"
        return f"Difference({self.images:,} images ({self.source}): {alike}{change})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(describe(self))}</pre>"

    @property
    def agreement(self) -> float:
        """Share of images with the same best class."""
        return 1 - len(self.flips) / self.images


def compare(a: Path, b: Path, dataset: Dataset | None, *, progress: Progress) -> Difference:
    """Answer the validation images of `dataset` (or the golden pictures) with both.

    Errors: UsageError if the models differ in classes or input; ArtifactError, CheckpointError, BackendUnavailable.
    """
    with open_runner(a) as first, open_runner(b) as second:
        if first.spec.class_ids != second.spec.class_ids:
            apart = classes_apart(first.spec, second.spec, ("the first", "the second"))
            raise UsageError(f"{a.name} and {b.name} have other classes, {apart}: their answers cannot be compared")
        if first.spec.input_shape != second.spec.input_shape:
            sizes = [f"{path} takes {runner.spec.input_shape[0]} pixels" for path, runner in ((a, first), (b, second))]
            raise UsageError(f"{', '.join(sizes)}: they are not given the same pictures", hint="compare equal sizes")
        images: NDArray[np.uint8]
        if dataset is None:
            progress.warn("compared on drawn pictures, since no data of the run was at hand (--data names it)")
            images, labels, source = golden.draw_pictures(first.spec).pixels, None, "generated"
        else:
            images, labels, source = dataset.val.images, np.asarray(dataset.val.labels), dataset.manifest.kind
        answers = [answer_all(runner, images, BATCH, progress) for runner in (first, second)]
    return difference(*answers, labels=labels, source=source)


def difference(
    a: NDArray[np.float32], b: NDArray[np.float32], *, labels: NDArray[np.int64] | None, source: str
) -> Difference:
    """Compare two sets of logits (N, C) of the same images. Errors: UsageError if one holds NaN."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UsageError("one of the two answers with NaN or infinity: verify it first")
    evidence = parity.Evidence(
        images=np.empty((len(a), 0, 0, 3), dtype=np.uint8),
        labels=labels,
        checkpoint=a,
        exact_rows=np.arange(len(a)),
        exact=a.astype(np.float64),
    )
    error = parity.share(parity.rms(b - a), evidence.signal)
    change = low = high = None
    if labels is not None:
        right_a, right_b = (answers.argmax(axis=1) == labels for answers in (a, b))
        change, low, high = paired_interval(int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum()), len(a))
    return Difference(
        images=len(a),
        source=source,
        error=error if np.isfinite(error) else None,
        max_abs=float(np.abs(b - a).max()),
        flips=tuple(parity.find_flips(evidence, b)),
        accuracy_a=None if labels is None else accuracy_of(a, labels),
        accuracy_b=None if labels is None else accuracy_of(b, labels),
        change=change,
        low=low,
        high=high,
    )


def describe(found: Difference, class_names: Sequence[str] = ()) -> str:
    """The difference for people; a class whose name is not given is a number."""

    def shown(index: int) -> str:
        return class_names[index] if index < len(class_names) else f"class {index}"

    error = "no signal to compare by" if found.error is None else f"{found.error:.2e} of the signal"
    lines = [
        f"{found.images} images ({found.source})",
        f"logits differ by {error}, at most {found.max_abs:.3g}",
        f"same class for {found.agreement:.2%}; {len(found.flips)} flipped",
    ]
    lines += [
        f"  image {flip.image}: {shown(flip.checkpoint)} -> {shown(flip.artifact)}, margin {flip.margin or 0:.3g}"
        for flip in sorted(found.flips, key=lambda flip: -(flip.margin or 0))[:SHOWN]
    ]
    if found.accuracy_a is None or found.accuracy_b is None or found.change is None:
        return "\n".join([*lines, "accuracy not compared: no data with labels"])
    change = f"{found.change * 100:+.2f} pt (95 %: {(found.low or 0) * 100:+.2f} to {(found.high or 0) * 100:+.2f})"
    return "\n".join([*lines, f"top-1 {found.accuracy_a.top1:.2%} -> {found.accuracy_b.top1:.2%}: {change}"])
