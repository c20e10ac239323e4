"""What a finished run is worth: its last and its best weights judged in float32, with and without mirrored pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres import records
from tinyres.checkpoint import load_weights
from tinyres.evaluation import evaluate
from tinyres.metrics import Accuracy, ClassResult, class_results, confusion_of
from tinyres.training.pace import EVALUATION_SPEEDUP

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from tinyres.data.dataset import Dataset
    from tinyres.runs import Epoch, Run, RunConfig

CHEAP_S = 30.0
CHEAP_SHARE = 0.1
"""Mirrored pictures are judged too if that takes less than CHEAP_S, or this share of the training."""
HIGHLIGHTS = 3


@dataclass(frozen=True, slots=True)
class Worth:
    """One checkpoint of the run."""

    epoch: int
    accuracy: Accuracy
    mirrored: Accuracy | None
    """With the logits of each picture and its mirror image averaged (TTA); None if that would have taken too long."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished run in numbers."""

    judged_on: str
    train_seconds: float
    """In steps; without compilation, evaluation and files."""
    last: Worth
    """The headline: nothing was selected."""
    best: Worth
    """Selected on the very pictures it is judged on."""
    hardest: tuple[ClassResult, ...]
    """The classes that the last weights know least."""


def summarize(run: Run, config: RunConfig, dataset: Dataset, history: list[Epoch], *, device: torch.device) -> Summary:
    """Judge final and best weights, write summary.json and return it. Errors: CheckpointError, StorageError."""
    seconds = sum(epoch.seconds for epoch in history)
    mirrored_s = 4 * len(dataset.val) / EVALUATION_SPEEDUP / max(history[-1].images_per_second, 1e-9)
    mirrored = mirrored_s <= max(CHEAP_S, CHEAP_SHARE * seconds)
    last, logits = _worth(run.final, config, dataset, mirrored=mirrored, device=device)
    best = last
    if load_weights(run.best).origin.step != history[-1].step:
        best, _ = _worth(run.best, config, dataset, mirrored=mirrored, device=device)
    hardest = class_results(confusion_of(logits, dataset.val.labels), config.spec)[:HIGHLIGHTS]
    summary = Summary(dataset.judged_on, seconds, last, best, hardest)
    records.save(run.path / "summary.json", summary)
    return summary


def describe_summary(summary: Summary) -> str:
    """The summary for people."""
    last, best = summary.last, summary.best
    accuracy = last.accuracy
    lines = [
        f"last epoch {last.epoch}: {accuracy.top1:.2%} top-1 of {accuracy.images:,} {summary.judged_on} images"
        f" (95 %: {accuracy.low:.1%} to {accuracy.high:.1%}){_mirrored(last)}",
        f"best epoch {best.epoch}: {best.accuracy.top1:.2%}, selected on the same images{_mirrored(best)}",
    ]
    for row in summary.hardest:
        often = f", often taken for {_short(row.mistaken_for)}" if row.mistaken_for else ""
        lines.append(f"hardest: {_short(row.name)}, {row.correct} of {row.images} right{often}")
    return "\n".join(lines)


def _worth(
    path: Path, config: RunConfig, dataset: Dataset, *, mirrored: bool, device: torch.device
) -> tuple[Worth, NDArray[np.float32]]:
    checkpoint = load_weights(path)
    model = checkpoint.model().to(device)
    judged = evaluate(model, dataset.val, config.spec.preprocess)
    twice = evaluate(model, dataset.val, config.spec.preprocess, mirrored=True).accuracy if mirrored else None
    return Worth(checkpoint.origin.epoch, judged.accuracy, twice), judged.logits


def _mirrored(worth: Worth) -> str:
    return f"\n  with mirror images averaged (TTA): {worth.mirrored.top1:.2%}" if worth.mirrored else ""


def _short(name: str) -> str:
    return name.split(",", maxsplit=1)[0]
