from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytest.importorskip("pty", reason="a pseudo-terminal is Unix's")

from terminal import SESSION, drawn, run_in_terminal, screen


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("bar 10%\rbar 20%\r\x1b[2Kdone\r\n", ["done"]),
        ("a\r\nb\r\nc\x1b[2A\r\x1b[2KA", ["A", "b", "c"]),
        ("x" * 90 + "\r\nb", ["x" * 80, "x" * 10, "b"]),
        ("x" * 80 + "\r\nb", ["x" * 80, "b"]),
        ("\x1b[?25labc\r\x1b[1mX\x1b[0m", ["\x1b[1mX\x1b[0mbc"]),
    ],
)
def test_what_was_overwritten_is_not_on_the_screen(written: str, lines: list[str]) -> None:
    assert screen(written) == lines


def test_a_command_sees_a_terminal_of_80_columns(tmp_path: Path) -> None:
    program = "import os, sys; print(os.get_terminal_size().columns, sys.stdout.isatty(), sys.stderr.isatty())"
    assert screen(run_in_terminal([sys.executable, "-c", program], tmp_path)) == ["80 True True"]


def test_the_picture_needs_nothing_from_elsewhere_and_is_small() -> None:
    for picture in (
        drawn({"tinyres recipes": ["\x1b[31mred\x1b[0m <plain>"]}),
        (REPOSITORY / "docs" / "pictures" / "terminal.svg").read_text(encoding="utf-8"),
    ):
        assert "url(http" not in picture
        assert "@import" not in picture
        assert len(picture.encode()) < 60_000


def test_the_picture_is_of_the_session() -> None:
    picture = (REPOSITORY / "docs" / "pictures" / "terminal.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    for typed in SESSION:
        assert typed in picture
    assert "proven" in picture
