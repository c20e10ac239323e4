"""Judging a model: what its answers over a split are worth — accuracy, loss, calibration, class by class."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyres.drawing import draw_confusion
from tinyres.errors import BackendUnavailable, InputError
from tinyres.metrics import (
    Accuracy,
    ClassResult,
    accuracy_of,
    calibration_error,
    class_results,
    confusion_of,
    cross_entropy,
)
from tinyres.run_data import data_of, require_same_classes
from tinyres.runtime.backends import open_runner

if TYPE_CHECKING:
    from tinyres.progress import Progress
    from tinyres.runs import Model

BATCH = 100
HARDEST = 5
"""Classes listed for people; the JSON has all."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model's answers over a validation split are worth."""

    data_kind: str
    split: str
    accuracy: Accuracy
    loss: float
    """Mean cross entropy."""
    calibration_error: float
    """Expected calibration error over 15 bins of confidence, 0..1."""
    classes: tuple[ClassResult, ...]
    """The hardest first."""
    picture: str
    """The confusion matrix, drawn; empty if it was not."""

    def __repr__(self) -> str:
        found = self.accuracy
        return (
            f"Judgement({found.top1:.2%} top-1 ({found.low:.2%} to {found.high:.2%}) of {found.images:,} {self.split}"
            f" images, loss {self.loss:.4f}, calibration error {self.calibration_error:.2%})"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(describe(self))}</pre>"


def judge(model: Model, data: str | None, *, cache_dir: Path | None, progress: Progress) -> Judgement:
    """Judge a checkpoint or an artifact over a whole validation split, and draw its confusion beside the model.

    Errors: InputError, UsageError, BackendUnavailable, StorageError.
    """
    dataset = data_of(model, data, cache_dir=cache_dir, progress=progress)
    with open_runner(model.path) as runner:
        require_same_classes(dataset, runner.spec)
        parts = []
        with progress.task("judging", len(dataset.val), "images") as task:
            for start in range(0, len(dataset.val), BATCH):
                parts.append(runner(np.asarray(dataset.val.images[start : start + BATCH])))
                task.advance(len(parts[-1]))
        logits, labels, spec = np.concatenate(parts), np.asarray(dataset.val.labels), runner.spec
    if not np.isfinite(logits).all():
        raise InputError(
            f"{model.name} answers with NaN or infinity: its weights are not usable", hint="train or export again"
        )
    confusion = confusion_of(logits, labels)
    picture = model.home / "confusion.png"
    drawn = str(picture)
    try:
        draw_confusion(picture, confusion, spec.class_names)
    except BackendUnavailable as exc:  # a device that runs files has no use for a drawing library
        progress.warn(f"no confusion picture: {exc}")
        drawn = ""
    return Judgement(
        data_kind=dataset.manifest.kind,
        split=dataset.judged_on,
        accuracy=accuracy_of(logits, labels),
        loss=cross_entropy(logits, labels),
        calibration_error=calibration_error(logits, labels),
        classes=class_results(confusion, spec),
        picture=drawn,
    )


def describe(judged: Judgement) -> str:
    """The judgement for people."""
    found = judged.accuracy
    lines = [
        f"top-1 {found.top1:.2%} (95 %: {found.low:.2%} to {found.high:.2%}), {found.images:,} {judged.split} images",
        f"top-5 {found.top5:.2%}",
        f"loss  {judged.loss:.4f}",
        f"calibration error {judged.calibration_error:.2%}",
        "hardest classes:",
    ]
    for row in judged.classes[:HARDEST]:
        often = f", often taken for {row.mistaken_for}" if row.mistaken_for else ""
        lines.append(f"  {row.correct / max(row.images, 1):6.1%} of {row.images:<5} {row.name}{often}")
    return "\n".join([*lines, *([f"wrote {judged.picture}"] if judged.picture else [])])
