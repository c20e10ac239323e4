"""A contender that crashes, hangs, runs out of memory or answers wrongly costs its row, and no other's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from misbehaving import SHORT, WORKER, contenders
from tiny import TrainedRun

from tinyres.bench import phases
from tinyres.bench.process import WorkerProcess
from tinyres.bench.reports.terminal import terminal
from tinyres.bench.results import Results
from tinyres.bench.run import run_bench
from tinyres.progress import Silent

NAMES = (
    "honest",
    "hangs",
    "crashes",
    "killed",
    "memory",
    "otherwise",
    "wrong",
    "nan",
    "alike",
    "astray",
    "absent",
    "half",
    "emulated",
)


def measured(trained: TrainedRun, folder: Path, names: tuple[str, ...]) -> Results:
    return run_bench(
        contenders(folder, names),
        trained.started.dataset,
        run="tiny",
        batches=(1, 4),
        effort=SHORT,
        command="tinyres bench tiny",
        threads=1,
        cache_dir=folder / "cache",
        worker=WORKER,
        progress=Silent(),
    )


@pytest.fixture(scope="module")
def results(trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "PATIENCE_S", 0.0)
        return measured(trained, tmp_path_factory.mktemp("files"), NAMES)


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("honest", "ok", ""),
        ("hangs", "failed", "no answer within 2 s; ended"),
        ("crashes", "failed", "the process ended with code 11: segment violated"),
        ("killed", "failed", "the process was killed, as the system does when memory runs out"),
        ("memory", "failed", "MemoryError: Unable to allocate 9 TiB"),
        ("otherwise", "failed", "the answers of a timed run differ from those of the accuracy run"),
        ("wrong", "failed", "its answers are not onnxruntime-cpu honest's: they differ by"),
        ("nan", "failed", "it answers with NaN or infinity"),
        ("alike", "failed", "it answers alike to every picture"),
        ("astray", "failed", "the answers of a timed run differ from those of the accuracy run"),
        ("absent", "skipped", "no such device (buy one)"),
        ("half", "ok", ""),
        ("emulated", "skipped", "times as long as fp32 on this processor"),
    ],
)
def test_each_ends_as_it_must(results: Results, name: str, status: str, reason: str) -> None:
    row = results.row(f"onnxruntime-cpu {name}")
    assert row is not None
    assert (row.status, reason in row.reason) == (status, True), row.reason
    assert bool(row.measurements) == (status == "ok")  # no latency stands in a row that is not to be believed
    shown = [line for line in terminal(results).splitlines() if line.startswith(f"onnxruntime-cpu {name} ")]
    assert bool(shown) == (status == "ok")


def test_a_contender_that_answers_otherwise_in_its_next_process_is_found_out(
    trained: TrainedRun, tmp_path: Path
) -> None:
    found = measured(trained, tmp_path, ("honest", "fickle"))
    row = found.row("onnxruntime-cpu fickle")
    assert row is not None
    assert (row.status, row.reason) == ("failed", "its answers differ from one process to the next")


def test_a_baseline_that_stops_later_is_still_the_baseline(trained: TrainedRun, tmp_path: Path) -> None:
    found = measured(trained, tmp_path, ("crowded", "honest"))
    assert found.baseline == "onnxruntime-cpu crowded"
    assert [row.status for row in found.rows] == ["ok", "ok"]


def test_what_was_not_asked_for_costs_none_of_what_was(trained: TrainedRun, tmp_path: Path) -> None:
    found = measured(trained, tmp_path, ("honest", "crowded"))
    row = found.row("onnxruntime-cpu crowded")
    assert row is not None
    assert row.status == "ok"
    assert {1, 4} <= {part.batch for part in row.measurements if part.blocks}
    assert [load.clients for load in row.loads] == [1, 2, 4, 8]
    assert row.warning == "batch 8: MemoryError: Unable to allocate 9 TiB"
    assert "onnxruntime-cpu crowded: batch 8: MemoryError" in terminal(found)


def test_a_baseline_of_nonsense_costs_nobody_else(trained: TrainedRun, tmp_path: Path) -> None:
    found = measured(trained, tmp_path, ("nan", "honest", "half"))
    assert [row.status for row in found.rows] == ["failed", "ok", "ok"]
    assert found.baseline == "onnxruntime-cpu honest"


def test_where_the_baseline_fails_the_next_one_takes_its_place(trained: TrainedRun, tmp_path: Path) -> None:
    found = measured(trained, tmp_path, ("crashes", "honest", "half"))
    assert [row.status for row in found.rows] == ["failed", "ok", "ok"]
    assert found.baseline == "onnxruntime-cpu honest"
    assert "The ratio is to onnxruntime-cpu honest" in terminal(found)


def test_the_rest_is_measured_in_full(results: Results) -> None:
    honest = results.row("onnxruntime-cpu honest")
    assert honest is not None
    assert {1, 4} <= {found.batch for found in honest.measurements if len(found.samples_s) >= 60}
    assert {load.clients for load in honest.loads} == {1, 2, 4, 8}
    assert results.baseline == "onnxruntime-cpu honest"


@pytest.mark.parametrize("phase", ["block", "load", "answer"])
def test_ctrl_c_keeps_what_was_measured(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    real, asked = WorkerProcess.ask, []

    def ask(self: WorkerProcess, do: str, **arguments: object) -> object:
        asked.append(do)
        if asked.count(phase) == 4 or do == phase == "answer":
            raise KeyboardInterrupt
        return real(self, do, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(WorkerProcess, "ask", ask)
    if phase == "answer":  # nothing was timed yet: there is nothing to keep
        with pytest.raises(KeyboardInterrupt):
            measured(trained, tmp_path, ("honest", "half"))
        return
    found = measured(trained, tmp_path, ("honest", "half"))
    assert found.interrupted
    first = found.row("onnxruntime-cpu honest")
    assert first is not None
    assert len(first.measurements[0].kept) == (2 if phase == "load" else 1)
    assert "Interrupted: some contenders" in terminal(found)


def test_processes_outlive_ctrl_c_so_that_the_bench_can_end_them() -> None:
    with WorkerProcess(WORKER) as worker:
        assert os.getpgid(worker.id) != os.getpgid(0)
        worker.kill()
