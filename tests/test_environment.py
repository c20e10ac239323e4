from __future__ import annotations

import sys

import pytest

from tinyres import environment, records


def test_a_message_loses_the_folders_of_this_machine_and_nothing_else() -> None:
    said = "cannot open /home/me/.venv/lib/x.so: no GLIBC in '/opt/a/b.so' (see https://a.b/c/d, and/or 1/2)"
    assert environment.without_folders(said) == "cannot open x.so: no GLIBC in 'b.so' (see https://a.b/c/d, and/or 1/2)"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (r"cannot open C:\Users\My Name\x.dll: no such file", "cannot open x.dll: no such file"),
        (r"cannot open 'C:\\Users\\me\\x.dll'", "cannot open 'x.dll'"),
        (r"D:/models/a.onnx and \\server\share\b.onnx (see https://a.b/c)", "a.onnx and b.onnx (see https://a.b/c)"),
        (r"the pattern \d+ or a\b is no folder", r"the pattern \d+ or a\b is no folder"),
    ],
)
def test_a_message_loses_the_folders_of_windows_too(said: str, left: str) -> None:
    assert environment.without_folders(said) == left


def test_the_command_is_recorded_without_the_folders_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [r"C:\Users\My Name\runs\mine", r"--data=D:/pictures/my.zip", r"runs\a", "1,32"]
    monkeypatch.setattr(sys, "argv", ["tinyres", "bench", *words])
    assert environment.command_line() == r"tinyres bench mine --data=my.zip runs\a 1,32"


def test_the_command_is_recorded_without_the_folders_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "tinyres",
        "bench",
        "/home/u/runs/mine",
        "--data=/home/u/my.zip",
        "--batch",
        "1,32",
        "~/x/y.onnx",
        "runs/a",
    ]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/tinyres", *words[1:]])
    assert environment.command_line() == "tinyres bench mine --data=my.zip --batch 1,32 y.onnx runs/a"


def test_a_captured_environment_is_a_record_with_the_versions_that_matter() -> None:
    found = environment.capture()
    assert records.from_json(environment.Environment, records.to_json(found), source="test") == found
    assert found.packages["tinyres"]
    assert found.cores >= 1
