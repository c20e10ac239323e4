"""Pictures of a training: loss, accuracy and learning rate over the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyres.errors import missing_extra
from tinyres.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tinyres.runs import Epoch


def draw_curves(path: Path, histories: Mapping[str, Sequence[Epoch]]) -> None:
    """Draw one or more histories into the PNG `path`. Errors: BackendUnavailable without matplotlib, StorageError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise missing_extra("drawing curves", "matplotlib", "train") from exc

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for number, (name, history) in enumerate(histories.items()):
        color = f"C{number}"
        epochs = [epoch.epoch for epoch in history]
        marker = "o" if len(epochs) < 3 else None
        label = f"{name} " if len(histories) > 1 else ""
        for axes, kind, scale in ((losses, "loss", 1), (accuracies, "acc", 100)):
            for part, style in (("train", ":"), ("val", "-")):
                values = [getattr(epoch, f"{part}_{kind}") * scale for epoch in history]
                axes.plot(epochs, values, style, color=color, marker=marker, label=f"{label}{part}")
    losses.set(xlabel="epoch", ylabel="cross entropy", title="loss", ylim=(0, None))
    accuracies.set(xlabel="epoch", ylabel="top-1, %", title="accuracy", ylim=(0, 100))
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
