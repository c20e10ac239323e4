from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TrainedRun

from tinyres.environment import process_count, process_rank
from tinyres.errors import UsageError
from tinyres.progress import Silent
from tinyres.training import launch
from tinyres.training.launch import Request, choose_recipe


@pytest.mark.parametrize(("device", "name"), [("cuda", "fast"), ("cpu", "nano")])
def test_without_a_name_a_gpu_gets_fast_and_a_cpu_nano(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyres.model.pick_device", lambda: torch.device(device))
    assert choose_recipe(None, [], None).name == name


def test_a_resumed_run_takes_no_other_options(trained: TrainedRun) -> None:
    old = trained.started.run
    for request in (Request(data="shapes"), Request(init="tiny"), Request(deterministic=True), Request(seed=1)):
        with pytest.raises(UsageError, match="a resumed run keeps its data, recipe"):
            launch.begin(request, old, runs=trained.runs, progress=Silent())


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
