from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Heard, TrainedRun

from tinyres.errors import TinyresError
from tinyres.progress import Silent
from tinyres.recipes import DEMO, SEED, Recipe
from tinyres.runs import Run
from tinyres.training import launch
from tinyres.training.caution import warn_of_data
from tinyres.training.pace import Pace
from tinyres.training.watch import Watch


def watch(
    recipe: Recipe, *, images_per_second: float, path: Path, max_seconds: float | None = None
) -> tuple[Watch, Heard]:
    pace, heard = Pace(max_seconds), Heard()
    for _ in range(10):
        pace.add(round(images_per_second), 1.0)
    return Watch(Run(path), recipe, pace, heard), heard


def test_the_rest_counts_growing_pictures_and_judging(tmp_path: Path) -> None:
    # Two epochs of 1000 pictures at half the side (a quarter of the work), two at the full; four judgements of 250.
    recipe = replace(DEMO, epochs=4, start_scale=0.5, grow=(0.5, 0.5))
    seen, _ = watch(recipe, images_per_second=200, path=tmp_path)

    def left(step: int) -> float:
        return seen.seconds_left(step=step, per_epoch=10, train_images=1000, judged_images=250)

    # At small pictures' pace: 2 * 1000 + 2 * 4 * 1000 training, and 4 * 250 * 4 / 2.5 judging, by 200 a second.
    assert left(0) == pytest.approx(58)
    assert left(5) == pytest.approx(58 - 2.5)
    # At full pictures' pace: half an epoch and one judgement.
    assert left(35) == pytest.approx((500 + 250 / 2.5) / 200)
    assert left(40) == 0


def test_the_length_is_said_once(tmp_path: Path) -> None:
    seen, heard = watch(DEMO, images_per_second=200, path=tmp_path)
    seen.estimate(58)
    seen.estimate(40)
    assert heard.lines == ["the whole will take about 58 s at 200 images/s"]


def test_a_slow_network_is_told_of_before_its_fourth_step(tmp_path: Path) -> None:
    for seconds, said in ((12.0, 0), (25.0, 1)):
        pace, heard = Pace(None), Heard()
        for _ in range(2):  # the first does not count
            pace.add(64, seconds)
        Watch(Run(tmp_path), DEMO, pace, heard).estimate(900)
        assert len(heard.lines) == said


def test_what_does_not_fit_into_the_time_given_is_said_with_what_does(tmp_path: Path) -> None:
    seen, heard = watch(DEMO, images_per_second=200, path=tmp_path, max_seconds=100.0)
    seen.estimate(400)
    assert heard.lines[1].startswith("warning: about 25% of it fits into --max-time")
    assert heard.lines[1].endswith("--set epochs=1 is a training that ends")
    seen, heard = watch(DEMO, images_per_second=200, path=tmp_path, max_seconds=100.0)
    seen.estimate(90)
    assert len(heard.lines) == 1


def test_a_run_of_weeks_is_warned_of_with_ways_out(tmp_path: Path) -> None:
    seen, heard = watch(SEED, images_per_second=9, path=tmp_path / "seed-1")
    seen.estimate(seen.seconds_left(step=0, per_epoch=1563, train_images=100_000, judged_images=10_000))
    assert heard.lines[1].startswith("warning: ")
    assert "--resume seed-1" in heard.lines[1]
    assert "--recipe nano" in heard.lines[1]


def test_uneven_classes_and_few_pictures_to_judge_on_are_said(trained: TrainedRun, own_pictures: Path) -> None:
    heard = Heard()
    warn_of_data(trained.started, heard)
    assert len(heard.lines) == 1
    assert heard.lines[0].startswith("warning: 15 pictures to judge on: an accuracy of 80 %")
    assert "would lie between 55% and 93%" in heard.lines[0]
    ring = sorted((own_pictures / "train" / "ring").iterdir())
    for path in ring[: len(ring) - 9]:
        path.unlink()
    uneven = launch.new_run(
        str(own_pictures), replace(DEMO, image_size=16), runs=own_pictures.parent / "runs", progress=Silent()
    )
    heard = Heard()
    warn_of_data(uneven, heard)
    assert "uneven classes: 20 pictures of" in heard.lines[0]
    assert "9 of ring" in heard.lines[0]


def test_what_is_judged_on_copies_or_not_at_all_is_said(own_pictures: Path) -> None:
    for path in (own_pictures / "val" / "ring").iterdir():
        path.unlink()
    for index, path in enumerate(sorted((own_pictures / "train" / "circle").iterdir())[:3]):
        shutil.copy(path, own_pictures / "val" / "circle" / f"copy-{index}.png")
    recipe = replace(DEMO, image_size=16)
    started = launch.new_run(str(own_pictures), recipe, runs=own_pictures.parent / "runs", progress=Silent())
    heard = Heard()
    warn_of_data(started, heard)
    assert heard.warned[0] == "no picture to judge on of ring"
    assert heard.warned[1].startswith("3 of 13 pictures to judge on are to be trained on too")


def test_tensorboard_gets_every_epoch(trained: TrainedRun, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe, history = trained.started.config.recipe, trained.started.run.history()
    assert recipe is not None
    seen = Watch(Run(tmp_path), recipe, Pace(None), Silent(), tensorboard=True)
    seen.epoch(history, judged_on="val", judged_of=15)
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [round(event.value, 4) for event in events.Scalars("val/acc")] == [round(history[-1].val_acc, 4)]
    assert events.Scalars("train/loss")[0].step == history[-1].step


def test_without_the_package_tensorboard_names_its_extra(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    recipe = trained.started.config.recipe
    assert recipe is not None
    with pytest.raises(TinyresError) as caught:
        Watch(Run(tmp_path), recipe, Pace(None), Silent(), tensorboard=True)
    assert caught.value.hint == "pip install 'tinyres[tensorboard]'"
