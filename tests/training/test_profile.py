from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TrainedRun
from typer.testing import CliRunner

from tinyres.cli import app
from tinyres.progress import Silent
from tinyres.training.profile import describe, measure_peak, profile


def test_the_parts_of_a_step_add_up_and_its_operations_are_counted(trained: TrainedRun) -> None:
    found = profile(trained.started, progress=Silent())
    assert [part.name for part in found.parts] == ["data", "forward", "backward", "update", "sums"]
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    assert (found.batch, found.size, found.precision) == (16, 16, "fp32")
    assert found.images_per_second == pytest.approx(found.batch / found.step_ms * 1e3)
    assert any("convolution" in part.name for part in found.operations)
    assert 0 < found.peak_share < 1
    # By hand: multiply-adds of each layer at 16x16, then 8x8; twice for operations; the backward pass twice again,
    # but for the first layer, which needs no gradient of its input.
    at16, at8 = 16 * 16, 8 * 8
    first = 3 * 8 * 9 * at16
    others = 2 * 8 * 8 * 9 * at16 + (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16) * at8 + 16 * 3
    flops = found.batch * 2 * (2 * first + 3 * others)
    assert found.tflops == pytest.approx(flops / (found.step_ms / 1e3) / 1e12, rel=0.01)


def test_the_profile_reads_well(trained: TrainedRun) -> None:
    found = profile(trained.started, progress=Silent())
    assert found.peak_memory_bytes is None  # on a CPU
    assert "3.0 GiB of GPU memory at most" in describe(replace(found, peak_memory_bytes=3 * 2**30))
    text = describe(found)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "where a step goes:" in text
    assert "of a large matrix product's" in text


def test_the_peak_is_measured() -> None:
    assert 1e-4 < measure_peak(torch.device("cpu"), "fp32", rounds=1) < 100


def test_profiling_leaves_no_run_behind(cli: CliRunner, picture_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", "--data", str(picture_folder), "--recipe", "demo", "--set", "image_size=16", "--profile"]
    done = cli.invoke(app, [*arguments, "--runs", str(tmp_path / "runs"), "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["batch"] == 60
    assert not (tmp_path / "runs").exists()
