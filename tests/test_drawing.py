from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from tiny import TrainedRun
from typer.testing import CliRunner

from tinyres.cli import app
from tinyres.drawing import _letters, curves_of, draw_confusion, draw_curves, find_histories
from tinyres.errors import UsageError
from tinyres.runs import Epoch


@pytest.fixture
def seeds_history(tmp_path: Path) -> Path:
    """A file in the form of the original project's."""
    path = tmp_path / "training_history.json"
    keys = ("train_loss", "train_acc", "val_loss", "val_acc", "lr")
    path.write_text(json.dumps({key: [0.5, 0.6] for key in keys}))
    return path


def test_runs_and_the_seeds_history_are_drawn_beside_each_other(
    cli: CliRunner, trained: TrainedRun, seeds_history: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "both.png"
    arguments = ["plot", "tiny", str(seeds_history), "--runs", str(trained.runs), "--out", str(picture)]
    done = cli.invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    with Image.open(picture) as image:
        assert image.width > 800
    histories, home = find_histories(["tiny", str(seeds_history)], trained.runs)
    assert list(histories) == ["tiny", "training_history"]
    assert [epoch.val_acc for epoch in histories["training_history"]] == [0.5, 0.6]
    assert home == trained.started.run.path


def test_one_run_is_drawn_into_its_folder(cli: CliRunner, trained: TrainedRun) -> None:
    done = cli.invoke(app, ["plot", "tiny", "--runs", str(trained.runs)])
    assert done.stdout.splitlines()[0] == f"wrote {trained.started.run.path / 'curves.png'}"


def test_a_name_given_twice_is_drawn_twice(trained: TrainedRun) -> None:
    assert list(find_histories(["tiny", "tiny"], trained.runs)[0]) == ["tiny", "tiny'"]


def test_a_history_without_times_is_not_drawn_over_minutes(seeds_history: Path, tmp_path: Path) -> None:
    histories, _ = find_histories([str(seeds_history)], tmp_path)
    with pytest.raises(UsageError, match="the history of training_history holds no times"):
        draw_curves(tmp_path / "out.png", histories, by_minutes=True)
    assert not (tmp_path / "out.png").exists()


def test_a_notebook_gets_the_picture_that_is_written(trained: TrainedRun, tmp_path: Path) -> None:
    figure = curves_of({"run": trained.started.run.history()})
    (tmp_path / "shown.png").write_bytes(figure._repr_png_())
    draw_curves(tmp_path / "written.png", {"run": trained.started.run.history()})
    with Image.open(tmp_path / "shown.png") as shown, Image.open(tmp_path / "written.png") as written:
        assert np.array_equal(np.asarray(shown), np.asarray(written))


def test_minutes_are_summed_over_epochs(trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[list[float]] = []
    real = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, places, *a, **k: drawn.append(places) or real(self, places, *a, **k))
    history = [replace(epoch, seconds=60.0) for epoch in trained.started.run.history()]
    draw_curves(tmp_path / "out.png", {"run": history}, by_minutes=True)
    assert drawn[0] == [1, 2, 3]


def test_a_wrong_axis_suggests_the_right_one(cli: CliRunner, trained: TrainedRun) -> None:
    done = cli.invoke(app, ["plot", "tiny", "--by", "minute", "--runs", str(trained.runs)])
    assert done.exit_code == 2
    assert "did you mean 'minutes'?" in done.stderr


def test_a_name_with_dollars_is_drawn_as_it_is(seeds_history: Path, tmp_path: Path, cli: CliRunner) -> None:
    odd = seeds_history.rename(tmp_path / r"$\frac{x$.json")
    done = cli.invoke(app, ["plot", str(odd), str(odd), "--runs", str(tmp_path), "--out", str(tmp_path / "out.png")])
    assert done.exit_code == 0, done.stderr
    names = [r"$\frac{x$", r"\$", "c"]
    draw_confusion(tmp_path / "confusion.png", np.eye(3, dtype=np.int64), names)
    assert [Text(text=_letters(name))._preprocess_math(_letters(name)) for name in names] == [(n, False) for n in names]


def test_a_name_that_begins_with_an_underscore_is_in_the_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    legends: list[list[str]] = []
    real = Axes.legend
    monkeypatch.setattr(
        Axes, "legend", lambda self, **k: legends.append(self.get_legend_handles_labels()[1]) or real(self, **k)
    )
    line = Epoch(1, 1, True, 1.0, 0.5, 1.0, 0.5, 9, 0.1, 1.0, 9.0)
    draw_curves(tmp_path / "out.png", {"_a": [line], "b": [line]})
    assert legends[0] == [" _a train", " _a val", "b train", "b val"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("train_acc", "1e308"), ("val_acc", "-0.1"), ("lr", "1e308"), ("lr", "-1"), ("val_loss", "1e308")],
)
def test_a_history_out_of_range_is_refused_by_its_field(
    field: str, value: str, seeds_history: Path, tmp_path: Path, cli: CliRunner
) -> None:
    content = json.loads(seeds_history.read_text()) | {field: [float(value)] * 2}
    seeds_history.write_text(json.dumps(content))
    done = cli.invoke(app, ["plot", str(seeds_history), "--runs", str(tmp_path), "--out", str(tmp_path / "out.png")])
    assert done.exit_code == 2
    assert f"training_history.json holds an epoch that cannot be: {field} of an epoch is out of range" in done.stderr
