from __future__ import annotations

from pathlib import Path

import pytest

from tinyres import console as console_module
from tinyres.console import Console
from tinyres.errors import UsageError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until it is moved."""
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    return now


def test_plain_progress_says_now_and_then_how_long_the_rest_takes(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console().task("training", 100, "steps") as task:
        for _ in range(30):
            clock[0] += 1
            task.advance(1, "loss 2")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "training: 10/100 steps, loss 2, 1 min 30 s left",
        "training: 20/100 steps, loss 2, 80 s left",
        "training: 30/100 steps, loss 2, 70 s left",
    ]


def test_what_is_told_of_the_rest_counts_more_than_the_units(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console().task("training", 100, "steps") as task:
        for second in range(12):
            clock[0] += 1
            task.advance(1, left_s=500.0 if second == 4 else None)
    assert capsys.readouterr().err == "training: 10/100 steps, 8 min 20 s left\n"  # 500 s, five seconds ago


def test_what_was_done_before_does_not_count_as_speed(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Console().task("training", 100, "steps", done=80) as task:
        for _ in range(10):
            clock[0] += 1
            task.advance()
    assert capsys.readouterr().err == "training: 90/100 steps, 10 s left\n"


def test_steps_of_a_larger_command_leave_the_one_json_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    out = Console(json=True)
    with out.steps():
        out.result({"step": 1}, "step 1")
    out.result({"all": True}, "all")
    assert capsys.readouterr().out.split() == ["{", '"all":', "true", "}"]


def test_log_lines_reach_the_file_even_when_quiet(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    out = Console(quiet=True)
    path = tmp_path / "train.log"
    with out.copied_to(path):
        out.log("epoch 1")
        out.warn("hot")
    assert path.read_text() == "epoch 1\nwarning: hot\n"
    assert capsys.readouterr().err == "warning: hot\n"


def test_of_several_processes_the_others_speak_only_if_they_fail(capsys: pytest.CaptureFixture[str]) -> None:
    out = Console()
    out.speak_as(3)
    out.log("epoch 1")
    out.warn("uneven classes")
    out.result({}, "done")
    assert capsys.readouterr() == ("", "")
    assert out.fail(UsageError("no such data")) == 2
    assert capsys.readouterr().err == "[process 3] error: no such data\n"


def test_a_log_on_a_full_disk_does_not_end_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    out = Console()
    with out.copied_to(Path("/dev/full")):
        out.log("epoch 1")
    assert capsys.readouterr().err == "epoch 1\n"
