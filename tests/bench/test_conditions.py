from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tinyres import environment
from tinyres.bench.conditions import GpuReading, Observer, Reading, read_gpu

QUIET = Reading(100.0, 50.0, 1.0, 20.0, 7, 0.3e-3, None)
WARM = GpuReading(1500.0, 60.0, 2**30, slowed=False)


def later(**changed: object) -> Reading:
    """A second on two cores, of which the contender used one and a half."""
    return replace(QUIET, **{"at_s": 101.0, "busy_s": 51.5, "own_s": 21.5, **changed})  # type: ignore[arg-type]


def observer() -> Observer:
    known = Observer(cores=2, watches_gpu=False)
    known.spins_s = [0.3e-3] * 6
    known.gpu_clocks_mhz = {"tensorrt": [1500.0] * 6}
    return known


def test_a_block_that_was_left_alone_is_not_disturbed() -> None:
    assert observer().disturbance(QUIET, later()) == ""


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (later(busy_s=51.9), "other processes took 20% of the processor"),
        (later(stolen_s=1.1), "the hypervisor took 5% of the processor"),
        (later(throttled=8), "the processor was slowed down for its heat"),
        (later(spin_s=0.4e-3), "the processor's clock was -25% off the usual"),
        (later(spin_s=0.2e-3), "the processor's clock was +50% off the usual"),
        (later(gpu=replace(WARM, slowed=True)), "the GPU was slowed down at 60 degrees"),
        (later(gpu=replace(WARM, clock_mhz=1200.0)), "the GPU's clock was -20% off the usual"),
    ],
)
def test_each_disturbance_is_named(after: Reading, said: str) -> None:
    assert observer().disturbance(QUIET, after, on_gpu="tensorrt") == said


def test_an_idle_gpu_disturbs_nobody_who_is_not_on_it() -> None:
    known = observer()
    assert known.disturbance(QUIET, later(gpu=replace(WARM, clock_mhz=210.0))) == ""
    assert known.gpu_clocks_mhz == {"tensorrt": [1500.0] * 6}


def test_the_rounding_of_counters_is_no_disturbance() -> None:
    short = replace(QUIET, at_s=100.1, busy_s=50.19, own_s=20.15, stolen_s=1.01)
    assert observer().disturbance(QUIET, short) == ""


def test_where_the_system_does_not_tell_nothing_is_made_up() -> None:
    silent = replace(QUIET, busy_s=None, stolen_s=None, throttled=None)
    assert observer().disturbance(silent, replace(silent, at_s=101.0)) == ""


def test_what_is_usual_is_not_known_from_the_first_blocks() -> None:
    fresh = Observer(cores=2, watches_gpu=False)
    assert fresh.disturbance(QUIET, later(spin_s=9e-3)) == ""


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells what its processors did")
def test_this_machines_counters_are_read() -> None:
    known = Observer(cores=2, watches_gpu=False)
    before = known.read(os.getpid())
    sum(range(3_000_000))
    after = known.read(os.getpid())
    assert after.at_s > before.at_s
    assert after.busy_s is not None
    assert before.busy_s is not None
    assert after.busy_s >= before.busy_s > 0
    assert after.own_s > before.own_s
    assert 1e-5 < after.spin_s < 1


def program(folder: Path, text: str) -> Path:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("echo '1980, 41, 532, 0x0000000000000000'", GpuReading(1980.0, 41.0, 532 * 2**20, slowed=False)),
        ("echo '1200, 88, 532, 0x0000000000000020'", GpuReading(1200.0, 88.0, 532 * 2**20, slowed=True)),
        ("echo '1980, 41, 532, 0x0000000000000001'", GpuReading(1980.0, 41.0, 532 * 2**20, slowed=False)),  # idle
        ("echo '[N/A], 41, 532, 0x0'", None),
        ("echo 'No devices were found'; exit 6", None),
    ],
)
def test_the_drivers_program_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, found: GpuReading | None
) -> None:
    program(tmp_path, answer)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert read_gpu() == found


def test_a_gpu_is_named_without_a_library_that_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo 'NVIDIA H100, 9.0, 580.1'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert environment._gpu_by_driver() == "NVIDIA H100 (sm_90, driver 580.1)"
    program(tmp_path, "exit 9")
    assert environment._gpu_by_driver() is None


def test_threads_get_cores_of_their_own_before_halves_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(environment, "_siblings", lambda core: {0, 1} if core < 2 else {2, 3})
    assert environment.cores_for(1) == [0]
    assert environment.cores_for(2) == [0, 2]
    assert environment.cores_for(3) == [0, 1, 2]
    assert environment.cores_for(9) == [0, 1, 2, 3]
