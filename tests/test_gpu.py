"""What only a GPU can show: trainings, engines and providers on a real device: `make test-gpu`.

Where a library is not here, its test is skipped with the reason; elsewhere the same calls are acted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import on_gpus
from tiny import TINY, StopAfter, require_same_end

from tinyres import weights
from tinyres.errors import BackendUnavailable
from tinyres.export.engine import choose_destination, export_engine
from tinyres.export.pipeline import export_onnx
from tinyres.export.verify import verify
from tinyres.progress import Silent
from tinyres.recipes import Recipe
from tinyres.runs import Run
from tinyres.runtime import tensorrt_library
from tinyres.runtime.backends import open_runner, why_unavailable
from tinyres.runtime.cuda import find_device
from tinyres.runtime.passport import BuildOptions
from tinyres.training import launch
from tinyres.training.launch import Started
from tinyres.training.profile import profile
from tinyres.training.train import Loop, Options, train
from tinyres.training.trainer import Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
COMPILED = replace(TINY, precision="auto", compile="on")
PLAIN = BuildOptions((1, 8, 32), None, None, version_compatible=False, hardware_compatible=False)


@pytest.fixture(scope="module", autouse=True)
def _device(request: pytest.FixtureRequest) -> None:
    if not on_gpus(request.config):
        pytest.skip("nothing is run on a GPU but by make test-gpu")
    if not torch.cuda.is_available():
        pytest.fail("there is no GPU here, or PyTorch does not see it")


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        find_device()
    except BackendUnavailable as exc:
        pytest.skip(f"engines and providers were not run: {exc}")
    shipped = weights.folder("nano")
    assert shipped is not None
    target = tmp_path_factory.mktemp("gpu") / "fp32.onnx"
    return export_onnx(
        shipped / "final.safetensors",
        target,
        dataset=None,
        batches=PLAIN.batches,
        proof_images=32,
        progress=Silent(),
    ).path


def test_a_training_killed_again_and_again_ends_bit_for_bit_like_an_unbroken_one(
    picture_folder: Path, tmp_path: Path
) -> None:
    tests = Path(__file__).parent
    ended = subprocess.run(
        [sys.executable, tests / "training" / "lives.py", picture_folder, tmp_path, "1", "deterministic"],
        env={**os.environ, "PYTHONPATH": str(tests), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},  # its lives are forks
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert sum(json.loads(ended.stdout).values()) >= 8
    require_same_end(Run(tmp_path / "whole"), Run(tmp_path / "killed"))


def test_a_compiled_training_stopped_inside_an_epoch_ends_bit_for_bit_too(picture_folder: Path, tmp_path: Path) -> None:
    for name, stops in (("whole", 1_000), ("stopped", 6)):
        started = begin(picture_folder, tmp_path / name, replace(COMPILED, ema_epochs=0.5), deterministic=True)
        with started.run.lock():
            trainer = Trainer(started.run, started.config, started.dataset, progress=Silent())
            trainer.prepare()
            assert (trainer.compiled, trainer.device.type) == (True, "cuda")
            assert Loop(trainer).run(StopAfter(stops)) == ("interrupted" if name == "stopped" else "")
            assert bool(trainer.step % trainer.batches.per_epoch) == (name == "stopped")
        if name == "stopped":
            options = Options(resume=True, strict_resume=True)
            train(started.run, started.config, started.dataset, options=options, progress=Silent())
    require_same_end(Run(tmp_path / "whole" / "run"), Run(tmp_path / "stopped" / "run"))


def test_a_training_as_it_is_chosen_here_learns_what_an_eager_one_in_float32_learns(
    picture_folder: Path, tmp_path: Path
) -> None:
    losses = []
    for name, recipe in (
        ("here", COMPILED),
        ("eager", replace(COMPILED, precision="fp32", compile="off")),
    ):
        started = begin(picture_folder, tmp_path / name, recipe)
        train(started.run, started.config, started.dataset, progress=Silent())
        losses.append([epoch.train_loss for epoch in started.run.history()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    assert losses[0][-1] < losses[0][0]


def test_the_profile_of_a_step_adds_up(picture_folder: Path, tmp_path: Path) -> None:
    found = profile(begin(picture_folder, tmp_path, COMPILED), progress=Silent())
    assert [part.name for part in found.parts] == ["data", "forward", "backward", "update", "sums"]
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    assert found.operations
    assert 0 < found.peak_share < 1
    assert found.peak_memory_bytes


def begin(pictures: Path, runs: Path, recipe: Recipe, *, deterministic: bool = False) -> Started:
    return launch.new_run(str(pictures), recipe, runs=runs, name="run", deterministic=deterministic, progress=Silent())


def library(name: str) -> None:
    if name not in tensorrt_library.installed():
        pytest.skip(f"{name} is not installed here")


def test_tensorrt_builds_runs_and_proves_an_engine(onnx: Path) -> None:
    library("tensorrt")
    built = export_engine(
        onnx, onnx.parent, destination=choose_destination("trt", None), options=PLAIN, progress=Silent()
    )
    assert built.certificate.grade == "numeric"
    assert "the inspector shows fp32" in built.certificate.levels[0].detail
    assert verify(built.path, progress=Silent()).path == built.path
    images = np.random.default_rng(0).integers(0, 256, (70, 64, 64, 3), dtype=np.uint8)
    with open_runner(built.path) as engine, open_runner(onnx) as cpu:
        wanted = cpu(images)
        for count in (1, 8, 31, 32, 33, 70, 8, 1):  # recorded, replayed, and in parts
            np.testing.assert_allclose(engine(images[:count]), wanted[:count], rtol=1e-3, atol=1e-3)
        parts = engine.device_times(images[:32], 20)
        assert set(parts) == {"copy in", "network", "copy out", "all, enqueued", "all, one graph"}
        assert all(min(took) > 0 for took in parts.values())


def test_tensorrt_for_rtx_runs_on_its_gpus_and_refuses_others_readably(onnx: Path) -> None:
    library("tensorrt-rtx")
    destination = choose_destination("rtx", None)
    built = export_engine(onnx, onnx.parent, destination=destination, options=PLAIN, progress=Silent())
    if destination.device is not None:
        assert built.certificate.grade == "numeric"
        return
    assert built.certificate.grade == "unproven"
    with pytest.raises(BackendUnavailable, match="the engine was built for tensorrt-rtx"):
        open_runner(built.path)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntimes_providers_prove_the_file(onnx: Path, backend: str) -> None:
    if missing := why_unavailable(backend):
        pytest.skip(str(missing))
    levels = verify(onnx, backend=backend, progress=Silent()).levels
    assert all(level.passed for level in levels)
    with open_runner(onnx, backend=backend) as runner:
        parts = runner.device_times(np.zeros((32, 64, 64, 3), dtype=np.uint8), 20)
    assert [len(took) for took in parts.values()] == [20]
    assert all(min(took) > 0 for took in parts.values())
