from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import Heard, TrainedRun

from tinyres.errors import UsageError
from tinyres.export.artifact import Exported
from tinyres.judge import describe, judge
from tinyres.metrics import class_results
from tinyres.progress import Silent
from tinyres.run_data import data_at_hand
from tinyres.runs import find_model


@pytest.fixture
def own_run(trained: TrainedRun, exported: Exported, tmp_path: Path) -> Path:
    """A copy of the run that commands may write into."""
    return Path(shutil.copytree(trained.started.run.path, tmp_path / "tiny"))


def test_checkpoint_and_artifact_are_judged_alike_and_as_in_training(own_run: Path, trained: TrainedRun) -> None:
    found = [
        judge(find_model(str(path), own_run.parent), None, cache_dir=None, progress=Silent())
        for path in (own_run, own_run / "export" / "fp32.onnx")
    ]
    best = max(trained.started.run.history(), key=lambda epoch: (epoch.val_acc, epoch.epoch))
    for judged in found:
        assert judged.accuracy.top1 == pytest.approx(best.val_acc)
        assert judged.loss == pytest.approx(best.val_loss, rel=1e-4)
        assert judged.accuracy.images == sum(row.images for row in judged.classes) == 15
    with Image.open(found[0].picture) as picture:
        assert picture.format == "PNG"
    assert f"top-1 {best.val_acc:.2%}" in describe(found[0])


def test_the_hardest_class_comes_first_with_what_it_is_taken_for(trained: TrainedRun) -> None:
    confusion = np.array([[5, 0, 0], [1, 2, 2], [0, 0, 5]])
    rows = class_results(confusion, trained.started.config.spec)
    assert (rows[0].id, rows[0].correct, rows[0].mistaken_for) == ("ring", 2, "triangle")
    assert rows[1].mistaken_for == ""


def test_data_of_other_classes_is_refused(own_run: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        for number in range(2):
            path = tmp_path / "other" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16)).save(path)
    with pytest.raises(UsageError, match="has other classes than the model"):
        judge(find_model(str(own_run), own_run), str(tmp_path / "other"), cache_dir=None, progress=Silent())


def test_data_that_is_gone_is_not_at_hand_and_says_so(own_run: Path) -> None:
    config = own_run / "config.json"
    place = Path(find_model(str(own_run), own_run).run.config().data)
    config.write_text(config.read_text().replace(str(place), str(place) + "-gone"))
    heard = Heard()
    assert data_at_hand(find_model(str(own_run), own_run), None, cache_dir=own_run / "empty", progress=heard) is None
    assert heard.warned == [
        f"the data of run tiny is gone: there is no {place}-gone; judging on drawn pictures instead"
    ]


def test_a_bare_checkpoint_needs_its_data_named(own_run: Path, tmp_path: Path) -> None:
    bare = shutil.copy(own_run / "best.safetensors", tmp_path / "bare.safetensors")
    with pytest.raises(UsageError, match="not known what bare was trained on"):
        judge(find_model(str(bare), tmp_path), None, cache_dir=None, progress=Silent())


def test_without_a_drawing_library_it_is_judged_all_the_same(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Listening(Silent):
        def warn(self, text: str) -> None:
            said.append(text)

    model = find_model(str(own_run), own_run)
    drawn = judge(model, None, cache_dir=None, progress=Silent())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    judged = judge(model, None, cache_dir=None, progress=Listening())
    assert judged == dataclasses.replace(drawn, picture="")
    assert "wrote" not in describe(judged)
    assert said == ["no confusion picture: drawing needs the package matplotlib, which is not installed"]
