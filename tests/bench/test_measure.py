"""The command from end to end: conditions, the earlier bench, and the exit code."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TrainedRun, write_pictures
from typer.testing import CliRunner

from tinyres import records
from tinyres.bench import results as bench_results
from tinyres.bench.schedule import Effort
from tinyres.cli import app
from tinyres.export.artifact import Exported


@pytest.fixture
def bench(exported: Exported, trained: TrainedRun, tmp_path: Path, brief: Effort) -> Bench:
    return Bench(trained, tmp_path)


class Bench:
    def __init__(self, trained: TrainedRun, folder: Path) -> None:
        self.trained, self.folder = trained, folder

    def __call__(self, *options: str, backends: str = "onnxruntime-cpu") -> tuple[int, str, str]:
        shared = ["bench", "tiny", "--runs", str(self.trained.runs), "--quick", "--batch", "1", "--threads", "1"]
        result = CliRunner().invoke(app, [*shared, "--out", str(self.folder), "--backends", backends, *options])
        return result.exit_code, result.stdout, result.stderr


def test_reports_are_written_and_json_is_that_of_the_file(bench: Bench) -> None:
    code, said, log = bench("--json")
    assert code == 0, log
    assert json.loads(said) == json.loads((bench.folder / "results.json").read_text())
    assert sorted(path.name for path in bench.folder.iterdir()) == [
        "report.html",
        "results.csv",
        "results.json",
        "results.md",
    ]
    assert "measuring 1 contender" in log
    assert "timing 2 rounds in fresh processes: about" in log


def test_a_condition_that_holds_ends_with_code_1_and_says_for_whom(bench: Bench) -> None:
    code, said, log = bench("--fail-if", "p50>1us", "--fail-if", "accuracy<0.01")
    assert code == 1
    assert "warning: --fail-if p50>1us: onnxruntime-cpu fp32: p50 is " in log
    assert "accuracy<0.01:" not in log
    assert "passed: --fail-if 'accuracy<0.01'" in said
    assert "p50>1us" not in said
    assert "onnxruntime-cpu fp32" in said  # the tables are shown all the same
    code, said, log = bench("--fail-if", "p50>10s", "--fail-if", "accuracy<0.01")
    assert code == 0, log
    assert "passed: --fail-if 'p50>10s'\npassed: --fail-if 'accuracy<0.01'" in said


def test_a_condition_about_a_contender_that_nobody_is_ends_before_anything_is_measured(bench: Bench) -> None:
    code, _, log = bench("--fail-if", "onnxrumtime*:p50>1s")
    assert code == 2
    assert "error: --fail-if 'onnxrumtime*:p50>1s': no contender is called 'onnxrumtime*'" in log
    assert "measuring" not in log


def test_the_same_bench_again_is_held_against_the_earlier_one(bench: Bench, tmp_path: Path) -> None:
    assert bench()[0] == 0
    earlier = tmp_path / "earlier.json"
    (bench.folder / "results.json").rename(earlier)
    code, said, log = bench("--against", str(earlier))
    assert code == 0, log
    assert "against the earlier bench" in said
    known = bench_results.load(earlier)
    other = replace(known, environment=replace(known.environment, cpu="Another"))
    records.save(earlier, other)
    code, said, log = bench("--against", str(earlier))
    assert (code, said) == (2, "")
    assert "measured on another machine or with other settings: cpu: Another" in log
    assert "measuring" not in log  # found before minutes were spent


def test_a_backend_that_was_named_and_is_not_here_is_not_passed_over(bench: Bench) -> None:
    code, said, _ = bench(backends="onnxruntime-cpu,tensorrt")
    assert code == 4
    assert re.search(r"tensorrt.*: skipped: ", said)


def test_ctrl_c_writes_what_there_is_and_ends_with_130(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyres.bench.phases.Bench.time_other_batches", interrupted)
    code, said, log = bench()
    assert code == 130
    assert "what was measured until now is kept" in log
    assert "Interrupted: some contenders" in said
    assert bench_results.load(bench.folder / "results.json").interrupted


def test_data_of_other_classes_is_refused_before_anything_is_opened(bench: Bench, tmp_path: Path) -> None:
    write_pictures(tmp_path / "other" / "train", classes=2, each=3)
    write_pictures(tmp_path / "other" / "val", classes=2, each=3, split="val")
    code, said, log = bench("--data", str(tmp_path / "other"))
    assert (code, said) == (2, "")
    assert "has other classes than the model" in log
    assert "measuring" not in log


def test_a_folder_that_cannot_be_written_is_found_before_minutes_are_spent(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said, log = bench("--out", str(tmp_path / "file" / "bench"))
    assert (code, said) == (1, "")
    assert "cannot write" in log
    assert "measuring" not in log
