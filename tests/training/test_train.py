from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, Heard, StopAfter, TrainedRun, require_same_end, write_pictures
from typer.testing import CliRunner

from tinyres.checkpoint import load_state, load_weights, same_weights, save_state
from tinyres.cli import app
from tinyres.errors import CheckpointError, DataError, StorageError, TrainingError, UsageError
from tinyres.progress import Silent
from tinyres.recipes import Recipe
from tinyres.run_data import run_data
from tinyres.runs import Run
from tinyres.schedules import learning_rate
from tinyres.training import launch
from tinyres.training import trainer as trainer_module
from tinyres.training.distributed import World
from tinyres.training.launch import Started
from tinyres.training.pace import catch_interrupt
from tinyres.training.train import Loop, Options, train
from tinyres.training.trainer import Trainer

DROPPING = replace(TINY, dropout=0.2, ema_epochs=0.5, flip="alternating", start_scale=0.5, grow=(0.2, 0.6))
"""With everything that a resume has to get right."""


def start(pictures: Path, runs: Path, recipe: Recipe = DROPPING, name: str = "run") -> Started:
    return launch.new_run(str(pictures), recipe, runs=runs, name=name, progress=Silent())


def run_to_end(started: Started, *, resume: bool = False) -> None:
    train(started.run, started.config, started.dataset, options=Options(resume=resume), progress=Silent())


def ready(started: Started) -> Trainer:
    trainer = Trainer(started.run, started.config, started.dataset, progress=Silent())
    trainer.prepare()
    return trainer


def test_a_finished_run_has_all_its_files(trained: TrainedRun) -> None:
    run: Run = trained.started.run
    names = {path.name for path in run.path.iterdir() if not path.name.startswith(".")}
    assert names >= {
        "config.json",
        "env.json",
        "state.json",
        "best.safetensors",
        "final.safetensors",
        "last.safetensors",
        "summary.json",
        "history.json",
        "training_history.json",
        "curves.png",
    }
    assert run.state().state == "finished"
    history = run.history()
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert all(epoch.complete and epoch.val_images == 15 for epoch in history)
    seeds_form = (run.path / "training_history.json").read_text()
    assert all(f'"{key}"' in seeds_form for key in ("train_loss", "train_acc", "val_loss", "val_acc", "lr"))


def test_best_is_the_epoch_with_the_highest_accuracy(trained: TrainedRun) -> None:
    run: Run = trained.started.run
    best = max(run.history(), key=lambda epoch: (epoch.val_acc, epoch.epoch))
    origin = load_weights(run.best).origin
    assert (origin.epoch, origin.selected_on) == (best.epoch, "val")
    origin = load_weights(run.final).origin
    assert (origin.epoch, origin.selected_on) == (3, "none")


@pytest.mark.parametrize("stop_after", [1, 4, 6])
def test_a_resumed_run_ends_bit_for_bit_like_an_unbroken_one(
    picture_folder: Path, tmp_path: Path, stop_after: int
) -> None:
    unbroken = start(picture_folder, tmp_path, name="unbroken")
    run_to_end(unbroken)
    broken = start(picture_folder, tmp_path, name="broken")
    with broken.run.lock():
        trainer = ready(broken)
        assert Loop(trainer).run(StopAfter(stop_after)) == "interrupted"
    run_to_end(broken, resume=True)

    require_same_end(unbroken.run, broken.run)
    assert same_weights(load_weights(broken.run.final).tensors, load_state(broken.run.last)["average"])


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_bit_for_bit_like_an_unbroken_one(
    picture_folder: Path, tmp_path: Path
) -> None:
    program = Path(__file__).with_name("lives.py")
    ended = subprocess.run(
        [sys.executable, program, picture_folder, tmp_path, "1"],
        env={**os.environ, "PYTHONPATH": str(program.parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    deaths = json.loads(ended.stdout)
    assert sum(deaths.values()) >= 8
    assert set(deaths) >= {"step", "half written", "written"}
    killed = Run(tmp_path / "killed")
    require_same_end(Run(tmp_path / "whole"), killed)
    assert [path.name for path in killed.path.iterdir() if ".part-" in path.name] == []


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_a_usable_run(picture_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tinyres", "train", "--runs", str(tmp_path), "--recipe", "demo", "--name", "long"]
    sizes = ["--set", "blocks=1,1", "--set", "widths=8,16", "--set", "image_size=16", "--set", "epochs=100000"]
    process = subprocess.Popen([*command, *sizes, "--data", str(picture_folder)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "long" / "best.safetensors").exists():
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    run = Run(tmp_path / "long")
    assert run.state().state == "stopped"
    assert load_weights(run.best).model()


def test_time_given_ends_a_run_cleanly_with_weights_to_use(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path, replace(DROPPING, epochs=10_000))
    result = train(started.run, started.config, started.dataset, options=Options(max_seconds=0.5), progress=Silent())
    assert result.stopped == "time"
    assert result.best is not None
    assert started.run.state().state == "stopped"
    assert load_weights(started.run.best).model()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(picture_folder, tmp_path)
    real = learning_rate
    monkeypatch.setattr(
        trainer_module,
        "learning_rate",
        lambda recipe, step, per: float("inf") if step == 5 else real(recipe, step, per),
    )
    with pytest.raises(TrainingError, match=r"NaN or infinite at step 7 \(learning rate") as caught:
        run_to_end(started)
    assert "--set lr=" in str(caught.value.hint)
    assert started.run.state().state == "failed"
    kept = load_state(started.run.last)
    assert kept["step"] == 4
    assert all(torch.isfinite(value).all() for value in kept["model"].values())


def test_an_update_that_breaks_the_weights_never_becomes_the_best(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(picture_folder, tmp_path)
    real = torch.optim.SGD.step
    calls: list[int] = []

    def step(self: torch.optim.SGD) -> None:
        real(self)
        calls.append(1)
        if len(calls) == 8:  # the last step of the second epoch: its loss is still finite
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("nan"))

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(TrainingError, match="a weight became NaN or infinite at step 8"):
        run_to_end(started)
    assert started.run.state().state == "failed"
    for path in (started.run.best, started.run.last):
        assert all(value.isfinite().all() for value in load_any(path))
    assert [epoch.epoch for epoch in started.run.history()] == [1]


def load_any(path: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return [value for value in load_file(path).values() if value.is_floating_point()]


def test_stopping_inside_a_later_epoch_leaves_the_best_of_whole_epochs(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path)
    trainer = ready(started)
    Loop(trainer).run(StopAfter(4))
    before = started.run.best.read_bytes()
    again = Trainer(started.run, started.config, started.dataset, progress=Silent())
    again.restore()
    again.prepare()
    Loop(again).run(StopAfter(2))
    assert started.run.best.read_bytes() == before
    assert load_state(started.run.last)["step"] == 6
    assert [epoch.complete for epoch in started.run.history()] == [True]


def test_resume_refuses_a_state_that_is_none(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path)
    save_state(started.run.last, {"step": 3})
    with pytest.raises(CheckpointError, match="is no training state of this run"):
        run_to_end(started, resume=True)


def test_resume_refuses_a_state_whose_history_cannot_be(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path)
    Loop(ready(started)).run(StopAfter(4))
    state = load_state(started.run.last)
    state["history"][0]["val_acc"] = 2.0
    save_state(started.run.last, state)
    with pytest.raises(CheckpointError, match="is no training state of this run: val_acc of an epoch"):
        run_to_end(started, resume=True)


def test_data_that_changed_is_not_judged_on_unasked(own_pictures: Path, tmp_path: Path) -> None:
    started = start(own_pictures, tmp_path)
    (own_pictures / "val" / "ring" / "1.png").unlink()
    with pytest.raises(DataError, match="has changed since it was trained"):
        run_data(started.config, cache_dir=tmp_path / "empty", progress=Silent())
    assert not (tmp_path / "empty").exists()  # and not decoded for nothing
    alike = started.config.data_fingerprint[:20] + "0" * 44  # as far as a cache's name goes
    with pytest.raises(DataError, match="has changed since it was trained"):
        run_data(replace(started.config, data_fingerprint=alike), progress=Silent())


@pytest.mark.parametrize("gone", [False, True])
def test_a_run_keeps_its_pictures_in_the_cache_when_the_folder_changes_or_goes(
    own_pictures: Path, tmp_path: Path, gone: bool
) -> None:
    started = start(own_pictures, tmp_path)
    if gone:
        own_pictures.rename(tmp_path / "moved")
    else:
        (own_pictures / "val" / "ring" / "1.png").unlink()
    heard = Heard()
    again = run_data(started.config, progress=heard)
    assert again.manifest == started.dataset.manifest
    assert (again.val.images == started.dataset.val.images).all()
    why = ": there is no such folder or zip" if gone else " has changed"
    assert heard.warned == [f"--data {own_pictures}{why}; its pictures of before are taken, from the cache"]


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path, replace(DROPPING, epochs=1))
    run_to_end(started)
    kept = {path: path.read_bytes() for path in (started.run.best, started.run.last)}
    program = (
        "import resource, sys; from pathlib import Path; from tinyres.checkpoint import load_state, save_state\n"
        "path = Path(sys.argv[1]); state = load_state(path)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"  # a write past this fails as on a full disk
        "save_state(path, state)"
    )
    ended = subprocess.run([sys.executable, "-c", program, started.run.last], capture_output=True, text=True)
    assert "StorageError: cannot write" in ended.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    assert [path.name for path in started.run.path.iterdir() if ".part-" in path.name] == []


def test_a_full_disk_ends_a_training_with_what_was_kept(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(picture_folder, tmp_path)
    real, calls = trainer_module.save_state, []

    def full(path: Path, state: dict[str, object]) -> None:
        calls.append(state["step"])
        if len(calls) == 2:
            raise StorageError(f"cannot write {path}: No space left on device")
        real(path, state)

    monkeypatch.setattr(trainer_module, "save_state", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        run_to_end(started)
    assert caught.value.hint == "the checkpoint before it is kept: make room, then tinyres train --resume run"
    assert load_state(started.run.last)["step"] == calls[0]
    run_to_end(started, resume=True)
    assert started.run.state().state == "finished"


def test_a_run_in_use_is_refused(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path)
    with started.run.lock(), pytest.raises(UsageError, match="in use by another process"):
        run_to_end(started)


def test_resume_refuses_data_that_changed(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path)
    run_to_end(started)
    manifest = replace(started.dataset.manifest, fingerprint="other")
    changed = replace(started, dataset=replace(started.dataset, manifest=manifest))
    with pytest.raises(CheckpointError, match="has changed"):
        run_to_end(changed, resume=True)


def test_resume_without_a_saved_state_says_so(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path)
    with pytest.raises(CheckpointError, match="saved nothing to resume from"):
        launch.old_run(started.run, progress=Silent())


def test_a_taken_name_is_refused_and_free_ones_are_numbered(picture_folder: Path, tmp_path: Path) -> None:
    start(picture_folder, tmp_path, name="mine")
    with pytest.raises(UsageError, match="there is a run 'mine' already"):
        start(picture_folder, tmp_path, name="mine")
    names = [launch.new_run(str(picture_folder), TINY, runs=tmp_path, progress=Silent()).run.name for _ in range(2)]
    assert names == ["tiny-1", "tiny-2"]


def test_tiny_imagenet_gets_the_seeds_constants_and_other_data_its_own(picture_folder: Path, tmp_path: Path) -> None:
    dataset = start(picture_folder, tmp_path).dataset
    own = launch.spec_for(dataset, TINY).preprocess
    assert own.mean == pytest.approx(np.asarray(dataset.train.images).mean(axis=(0, 1, 2)) / 255, abs=6e-5)
    official = replace(dataset, manifest=replace(dataset.manifest, kind="tiny-imagenet"))
    assert launch.spec_for(official, TINY).preprocess.mean == (0.4802, 0.4481, 0.3975)
    assert launch.spec_for(official, TINY).preprocess.std == (0.2296, 0.2263, 0.2255)


def test_a_batch_too_large_names_one_that_fits(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyres.training import compute

    def step(*_: object, images: int, **__: object) -> None:
        if images > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    def forward(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    started = start(picture_folder, tmp_path, replace(DROPPING, lr=0.32))
    monkeypatch.setattr(compute, "try_step", step)
    monkeypatch.setattr("tinyres.model.ResNet.forward", forward)
    with pytest.raises(TrainingError, match="a batch of 16 does not fit into the device's memory") as caught:
        run_to_end(started)
    assert caught.value.hint == "--set batch_size=4 --set lr=0.08"
    assert (started.run.state().state, started.run.state().message) == ("failed", "out of memory")


def test_an_error_that_is_not_about_memory_passes(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    started = start(picture_folder, tmp_path)
    monkeypatch.setattr("tinyres.model.ResNet.forward", forward)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run_to_end(started)


def resumed_elsewhere(started: Started, monkeypatch: pytest.MonkeyPatch, *, strict: bool) -> list[str]:
    """Stop a run, go on with another number of threads; what was warned of."""
    trainer = ready(started)
    Loop(trainer).run(StopAfter(5))
    warned: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "warn", warned.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    options = Options(resume=True, strict_resume=strict)
    train(started.run, started.config, started.dataset, options=options, progress=progress)
    return warned


def test_going_on_elsewhere_is_said(picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = start(picture_folder, tmp_path)
    warned = resumed_elsewhere(started, monkeypatch, strict=False)
    assert "threads was 1, is 99: the result will differ in the last bits" in warned[0]
    assert started.run.state().state == "finished"


def test_strict_resume_refuses_to_go_on_elsewhere(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(picture_folder, tmp_path)
    with pytest.raises(CheckpointError, match="threads was 1, is 99") as caught:
        resumed_elsewhere(started, monkeypatch, strict=True)
    assert "without --strict-resume" in str(caught.value.hint)
    assert load_state(started.run.last)["step"] == 5


def test_sigterm_stops_as_cleanly_as_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with catch_interrupt() as event:
        assert not event.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert event.is_set()
        assert signal.getsignal(signal.SIGTERM) == before  # a second one acts at once
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_average_is_what_is_judged_and_kept_and_equals_one_made_by_hand(
    picture_folder: Path, tmp_path: Path
) -> None:
    started = start(picture_folder, tmp_path, replace(DROPPING, epochs=1, ema_epochs=0.5))
    trainer = ready(started)
    average = {name: value.clone().double() for name, value in trainer.model.state_dict().items()}
    for step in range(trainer.batches.per_epoch):
        trainer.train_step()
        decay = min(math.exp(-1 / (0.5 * trainer.batches.per_epoch)), (1 + step) / (10 + step))
        for name, value in trainer.model.state_dict().items():
            if value.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * value.double()
    for name, value in trainer.kept.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), average[name], atol=1e-6), name
    assert not torch.equal(trainer.kept.fc.weight, trainer.model.fc.weight)


def test_bf16_trains_and_keeps_float32_weights(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path, replace(DROPPING, epochs=2, precision="bf16"))
    run_to_end(started)
    assert load_state(started.run.last)["compute"]["precision"] == "bf16"
    weights = load_weights(started.run.final).tensors
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    losses = [epoch.train_loss for epoch in started.run.history()]
    assert losses[1] < losses[0]


@pytest.mark.slow
def test_a_compiled_run_trains_like_an_eager_one(picture_folder: Path, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU, and there is no g++")
    small = replace(DROPPING, epochs=1, dropout=0.0, start_scale=1.0)
    runs = [start(picture_folder, tmp_path, replace(small, compile=way), name=way) for way in ("off", "on")]
    for started in runs:
        run_to_end(started)
    assert load_state(runs[1].run.last)["compute"]["compiled"]
    first, second = (load_weights(started.run.final).tensors for started in runs)
    for name, value in first.items():
        assert torch.allclose(value.double(), second[name].double(), atol=1e-3), name


def test_twenty_pictures_of_two_classes_train_and_say_how_little_it_means(cli: CliRunner, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets", classes=2, each=10)
    sizes = ["--set", "image_size=32", "--set", "epochs=3", "--set", "warmup_epochs=1", "--set", "widths=16,16,16,16"]
    data = ["--data", str(tmp_path / "pets"), "--runs", str(tmp_path / "runs"), "--name", "pets"]
    done = cli.invoke(app, ["train", *data, "--recipe", "nano", *sizes])
    assert done.exit_code == 0, done.stderr
    assert "judged on 3 (held back)" in done.stderr
    assert "3 pictures to judge on: an accuracy of 80 % would lie between" in done.stderr
    assert "% top-1 of 3 val images (95 %: " in done.stdout
    done = cli.invoke(app, ["export", "pets", "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("size", [32, 128, 256])
def test_any_size_of_picture_trains(size: int, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pets", classes=2, each=5)
    recipe = replace(TINY, image_size=size, epochs=1, batch_size=8, warmup_epochs=0.0)
    started = start(tmp_path / "pets", tmp_path / "runs", recipe)
    run_to_end(started)
    assert started.config.spec.input_shape == (size, size, 3)
    assert started.run.state().state == "finished"


@pytest.mark.parametrize("way", ["auto", "on"])
def test_a_compiler_that_fails_is_a_warning_unless_it_was_demanded(
    way: str, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TrainingError("torch.compile failed: no compiler", hint="--set compile=off")

    monkeypatch.setattr("tinyres.training.compute._compiles", lambda *_, **__: True)
    monkeypatch.setattr(trainer_module, "compile_model", broken)
    started = start(picture_folder, tmp_path, replace(DROPPING, compile=way))
    heard = Heard()
    trainer = Trainer(started.run, started.config, started.dataset, progress=heard)
    if way == "on":
        with pytest.raises(TrainingError, match=r"torch\.compile failed: no compiler"):
            trainer.prepare()
    else:
        trainer.prepare()
        assert heard.warned == ["torch.compile failed: no compiler; going on without"]
        assert not trainer.compiled
        assert trainer.forward is trainer.model


def test_sync_batchnorm_on_cpus_is_refused(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path, replace(DROPPING, sync_batchnorm=True))
    two = World(0, 2, torch.device("cpu"))
    with pytest.raises(UsageError, match="sync_batchnorm works on GPUs only"):
        Trainer(started.run, started.config, started.dataset, world=two, progress=Silent())


def test_a_first_step_that_diverges_claims_no_checkpoint(picture_folder: Path, tmp_path: Path) -> None:
    started = start(picture_folder, tmp_path)
    assert ready(started).diverged("the loss", 0).hint == "try --set lr=0.017"
