"""Contenders that crash, hang, answer nonsense or refuse: each costs its own row only."""

from __future__ import annotations

import sys

import pytest

from tinyres.bench.process import ContenderFailed, WorkerProcess


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_crash_gives_its_code_and_last_words() -> None:
    command = program("import sys; sys.stdin.readline(); print('out of luck', file=sys.stderr); sys.exit(9)")
    with WorkerProcess(command) as worker, pytest.raises(ContenderFailed, match="ended with code 9: out of luck"):
        worker.ask("open")


def test_a_hang_is_ended_after_its_limit() -> None:
    with (
        WorkerProcess(program("import sys\nfor _ in sys.stdin: pass\n")) as worker,
        pytest.raises(ContenderFailed, match="no answer within 0 s; ended"),
    ):
        worker.ask("open", limit_s=0.3)


def test_a_kill_is_noticed_at_once() -> None:
    command = program("import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)")
    with (
        WorkerProcess(command) as worker,
        pytest.raises(ContenderFailed, match="was killed, as the system does when memory runs out"),
    ):
        worker.ask("open")


def test_a_refusal_is_passed_on_and_the_process_lives() -> None:
    with WorkerProcess() as worker:
        for _ in range(2):
            with pytest.raises(ContenderFailed, match="was not told to open a model"):
                worker.ask("block", batch=1, seconds=0.1, least=1, most=2)


def test_an_end_between_two_questions_is_noticed() -> None:
    with WorkerProcess(program("pass")) as worker:
        for _ in range(2):
            with pytest.raises(ContenderFailed, match="ended with code 0"):
                worker.ask("open")
