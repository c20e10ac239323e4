from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny import TrainedRun

from tinyres.environment import process_count, process_rank
from tinyres.errors import DataError, UsageError
from tinyres.progress import Silent
from tinyres.runs import Run, find_model
from tinyres.training import launch
from tinyres.training.launch import Request, choose_recipe


@pytest.mark.parametrize(("device", "name"), [("cuda", "fast"), ("cpu", "nano")])
def test_without_a_name_a_gpu_gets_fast_and_a_cpu_nano(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyres.model.pick_device", lambda: torch.device(device))
    assert choose_recipe(None, [], None).name == name


def test_a_resumed_run_takes_no_other_options(trained: TrainedRun) -> None:
    old = trained.started.run
    for request in (Request(split="holdout"), Request(init="tiny"), Request(deterministic=True), Request(seed=1)):
        with pytest.raises(UsageError, match="a resumed run keeps its recipe"):
            launch.begin(request, old, runs=trained.runs, progress=Silent())


def test_a_resumed_run_takes_its_pictures_from_where_they_moved(
    trained: TrainedRun, own_pictures: Path, tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(trained.started.run.path, tmp_path / "tiny")))
    config = run.path / "config.json"
    config.write_text(config.read_text().replace(trained.started.config.data, str(tmp_path / "gone")))
    elsewhere = shutil.move(own_pictures, tmp_path / "elsewhere")  # a copy with the times of the files

    def resumed(data: Path) -> launch.Started:
        request = Request(data=str(data))
        return launch.begin(request, run, runs=tmp_path, cache_dir=tmp_path / "empty", progress=Silent())

    assert resumed(elsewhere).dataset.manifest.fingerprint == trained.started.config.data_fingerprint
    assert run.config().data == str(elsewhere)
    (elsewhere / "val" / "ring" / "1.png").unlink()
    with pytest.raises(DataError, match="does not hold the pictures that run tiny was trained on"):
        resumed(elsewhere)
    assert run.config().data == str(elsewhere)


def test_what_a_resumed_run_comes_to_is_said(trained: TrainedRun, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(trained.started.run.path, tmp_path / "tiny")))
    assert run.told_again == "run tiny is finished, and judged again; --init tiny trains on from its weights"
    assert find_model(None, tmp_path).told == "the newest run: tiny"
    run.set_state("stopped", epochs=1)
    assert run.told_again == "run tiny goes on"
    assert find_model(None, tmp_path).told == "the newest run: tiny, whose training is not finished"
    assert find_model("tiny", tmp_path).told == "model: tiny (best.safetensors)"


def test_alone_there_is_one_process_and_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert (process_count(), process_rank()) == (1, 0)
    with launch.processes() as world:
        assert world is None


def test_an_environment_that_is_not_torchruns_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'two' in the environment"):
        process_count()


def test_the_choice_to_be_deterministic_is_kept_with_the_run(picture_folder: Path, tmp_path: Path) -> None:
    request = Request(data=str(picture_folder), recipe="demo", assignments=("image_size=16",), deterministic=True)
    started = launch.begin(request, None, runs=tmp_path, progress=Silent())
    assert started.run.config().deterministic
