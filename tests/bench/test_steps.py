from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tinyres.bench.studies import steps
from tinyres.bench.studies.steps import profiled


def test_a_profile_that_ends_with_an_error_is_a_row_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = profiled("demo", {"batch_size": "0"})
    assert row["exit_code"] == 2
    assert row["error"] == "recipe demo: batch_size cannot be 0; valid: 1 or more"
    assert "--recipe demo --set batch_size=0 --profile --json" in row["command"]


@pytest.mark.parametrize(("stderr", "said"), [("", ""), ("data shapes\nlooking at steps\n", "looking at steps")])
def test_a_process_that_was_killed_is_a_row_too(stderr: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess([], -9, "", stderr)
    monkeypatch.setattr(steps.subprocess, "run", lambda *_, **__: killed)
    row = profiled("demo", {"batch_size": "8"})
    assert (row["exit_code"], row["error"]) == (-9, said)


def test_the_grid_is_measured_and_told_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, str]] = []

    def measured(recipe: str, fields: dict[str, str]) -> dict[str, object]:
        asked.append(fields)
        return {"exit_code": 0, "profile": {"images_per_second": 1234.5}}

    monkeypatch.setattr(steps, "profiled", measured)
    monkeypatch.setattr("sys.argv", ["steps", "fast", "--batches", "64,128", "--sizes", "32", "--compile", "on,off"])
    steps.main()
    assert [(fields["compile"], fields["batch_size"]) for fields in asked] == [
        ("on", "64"),
        ("on", "128"),
        ("off", "64"),
        ("off", "128"),
    ]
    said = capsys.readouterr()
    assert said.err.count("1,234 images/s") == 4
    assert '"command": "python -m tinyres.bench.studies.steps fast --batches 64,128' in said.out
