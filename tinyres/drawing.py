"""Pictures: loss and accuracy over the epochs of a training, and which classes a model mistakes for which."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres.errors import UsageError, missing_extra
from tinyres.files import atomic_path
from tinyres.runs import find_model
from tinyres.seed.importing import read_history

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from tinyres.runs import Epoch

HISTORIES = "valid: runs that were trained, or a training_history.json"
DPI = 110


def find_histories(names: Sequence[str], runs: Path) -> tuple[dict[str, list[Epoch]], Path | None]:
    """The histories of runs, and of files in the form of the seed's; and the folder of the last run among them.

    No name is the newest run. Errors: UsageError, InputError.
    """
    histories: dict[str, list[Epoch]] = {}
    home = None
    wanted: Sequence[str | None] = names or [None]
    for name in wanted:
        if name is not None and name.endswith(".json"):
            label, history = Path(name).stem, read_history(Path(name))
        else:
            model = find_model(name, runs)
            if model.run is None:
                raise UsageError(f"{name} belongs to no run, so it has no history to draw", hint=HISTORIES)
            label, history, home = model.name, model.run.history(), model.home
        if not history:
            raise UsageError(f"{label} has no training history to draw", hint=HISTORIES)
        while label in histories:
            label += "'"
        histories[label] = history
    return histories, home


def draw_curves(path: Path, histories: Mapping[str, Sequence[Epoch]], *, by_minutes: bool = False) -> None:
    """Draw `curves_of` into the PNG `path`. Errors: as there, and StorageError."""
    _save(curves_of(histories, by_minutes=by_minutes), path)


def curves_of(histories: Mapping[str, Sequence[Epoch]], *, by_minutes: bool = False) -> Figure:
    """Loss and accuracy of one or more histories, over epochs or over minutes spent in training steps.

    Errors: BackendUnavailable without matplotlib; UsageError for a history without times.
    """
    figure = _figure(10, 4)
    losses, accuracies = figure.subplots(1, 2)
    for number, (name, history) in enumerate(histories.items()):
        color = f"C{number}"
        seconds = [epoch.seconds for epoch in history]
        if by_minutes and not all(seconds):
            raise UsageError(f"the history of {name} holds no times", hint="--by epochs")
        places = [sum(seconds[: index + 1]) / 60 if by_minutes else e.epoch for index, e in enumerate(history)]
        marker = "o" if len(places) < 3 else None
        label = f"{_letters(name)} " if len(histories) > 1 else ""
        for axes, kind, scale in ((losses, "loss", 1), (accuracies, "acc", 100)):
            for part, style in (("train", ":"), ("val", "-")):
                values = [getattr(epoch, f"{part}_{kind}") * scale for epoch in history]
                axes.plot(places, values, style, color=color, marker=marker, label=f"{label}{part}")
    along = "minutes of training" if by_minutes else "epoch"
    losses.set(xlabel=along, ylabel="cross entropy", title="loss", ylim=(0, None))
    accuracies.set(xlabel=along, ylabel="top-1, %", title="accuracy", ylim=(0, 100))
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def draw_confusion(path: Path, confusion: NDArray[np.int64], class_names: Sequence[str]) -> None:
    """Draw a confusion matrix (C, C), row the true class, as shares of each row. Errors: as `draw_curves`."""
    count = len(confusion)
    figure = _figure(*(2 * [min(12.0, 4.5 + 0.25 * count)]))
    axes = figure.subplots()
    shares = confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="answered", ylabel="true")
    if count <= 40:
        names = [_letters(name.split(",")[0][:18]) for name in class_names]
        axes.set_xticks(range(count), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    _save(figure, path)


def _letters(name: str) -> str:
    """A name for matplotlib to draw as it is: it reads what is between $ as mathematics, and hides labels like _x."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise missing_extra("drawing", "matplotlib", "train") from exc

    class Drawing(Figure):
        def _repr_png_(self) -> bytes:
            """A notebook shows only figures of pyplot by itself, which keeps each one until it is closed."""
            self.savefig(png := BytesIO(), format="png", dpi=DPI)
            return png.getvalue()

    return Drawing(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI)
