"""Several processes on this machine, as torchrun starts them, over gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tinyres.checkpoint import load_state
from tinyres.runs import Run

pytestmark = pytest.mark.slow

SIZES = ["--set", "blocks=1,1", "--set", "widths=8,16", "--set", "image_size=16", "--set", "batch_size=16"]


def torchrun(processes: int, *arguments: object) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *launcher, "-m", "tinyres", "train", "--recipe", "demo", *SIZES, *map(str, arguments)]


def run_program(name: str, processes: int, *arguments: object) -> None:
    """Run a program beside this file under torchrun; it must end well."""
    program = Path(__file__).with_name(name)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launcher, program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(program.parents[1])},
    )
    assert done.returncode == 0, done.stderr


def ended(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_two_processes_write_one_run_and_speak_with_one_voice(picture_folder: Path, tmp_path: Path) -> None:
    done = ended(torchrun(2, "--data", picture_folder, "--runs", tmp_path, "--name", "two", "--set", "epochs=2"))
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "two")
    assert run.state().state == "finished"
    assert [(epoch.epoch, epoch.step, epoch.val_images) for epoch in run.history()] == [(1, 4, 15), (2, 8, 15)]
    assert load_state(run.last)["compute"]["processes"] == 2
    assert done.stdout.count("finished") == 1
    assert done.stderr.count("epoch 2/2") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_averaged_gradients_equal_those_of_one_process(picture_folder: Path, tmp_path: Path) -> None:
    """With batch norm frozen, since its statistics are per process; 60 pictures in batches of 16, the last of 12."""
    for processes in (1, 2, 3):
        run_program("frozen.py", processes, picture_folder, tmp_path / str(processes))
    alone, *together = (torch.load(tmp_path / str(processes) / "seen.pt") for processes in (1, 2, 3))
    for several in together:
        assert several["pictures"] == alone["pictures"] == 60
        assert several["loss"] == pytest.approx(alone["loss"], rel=1e-6)
        for name, weight in alone["weights"].items():
            assert torch.allclose(several["weights"][name], weight, rtol=1e-5, atol=1e-7), name


def test_a_signal_to_one_process_stops_all_at_the_same_step_also_right_after_a_resume(
    picture_folder: Path, tmp_path: Path
) -> None:
    run_program("stopped.py", 2, picture_folder, tmp_path)
    run = Run(tmp_path / "run")
    assert load_state(run.last)["step"] == 2
    assert [(epoch.complete, epoch.val_images) for epoch in run.history()] == [(False, 15)]


def test_a_process_that_dies_ends_the_run_and_it_can_be_resumed(picture_folder: Path, tmp_path: Path) -> None:
    command = torchrun(2, "--data", picture_folder, "--runs", tmp_path, "--name", "dying", "--set", "epochs=100000")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True)
    run = Run(tmp_path / "dying")
    deadline = time.monotonic() + 120
    while not run.last.is_file():
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        os.sched_yield()
    os.kill(worker_of(process.pid, rank=1), signal.SIGKILL)
    process.wait(timeout=120)
    assert process.returncode != 0
    steps = load_state(run.last)["step"]
    go_on = [sys.executable, "-m", "tinyres", "train", "--runs", str(tmp_path), "--resume", "dying", "--max-time", "2s"]
    again = ended(go_on)
    assert again.returncode == 0, again.stderr
    assert "processes was 2, is 1" in again.stderr
    assert load_state(run.last)["step"] > steps


def worker_of(parent: int, *, rank: int) -> int:
    """The process that torchrun started with RANK=`rank`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            above = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            ranked = f"\0RANK={rank}\0" in "\0" + (entry / "environ").read_text()
        except (OSError, IndexError):
            continue
        if above == parent and ranked:
            return int(entry.name)
    raise AssertionError("torchrun started no such process")
