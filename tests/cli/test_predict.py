from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tinyres import Classifier
from tinyres.cli import app
from tinyres.cli.asked import Asked, answers
from tinyres.export.artifact import Exported

Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(cli: CliRunner, exported: Exported) -> Predict:
    def invoke(*words: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        ended = cli.invoke(app, ["predict", *map(str, words), "--model", str(exported.path)], input=stdin)
        return ended.exit_code, ended.stdout, ended.stderr

    return invoke


def test_a_folder_a_pattern_and_a_list_name_the_same_pictures(predict: Predict, own_pictures: Path) -> None:
    ring = own_pictures / "val" / "ring"
    names = "\n".join(str(path) for path in sorted(ring.iterdir())) + "\n\n"
    (own_pictures / "names.txt").write_text(names)
    first, *others = [
        predict(ring, "--jsonl"),
        predict(f"{ring}/*.png", "--jsonl"),
        predict("--files-from", own_pictures / "names.txt", "--jsonl"),
        predict("--files-from", "-", "--jsonl", stdin=names.encode()),
    ]
    assert first[0] == 0
    assert len(first[1].splitlines()) == 5
    assert all(other[:2] == first[:2] for other in others)


def test_a_file_without_its_certificate_answers_and_says_that_nothing_is_proven(
    cli: CliRunner, exported: Exported, picture_folder: Path, tmp_path: Path
) -> None:
    picture = next((picture_folder / "val" / "ring").iterdir())
    alone = Path(shutil.copy(exported.path, tmp_path / "alone.onnx"))
    ended = cli.invoke(app, ["predict", str(picture), "--model", str(alone)])
    assert ended.exit_code == 0
    assert "warning: alone.onnx has no certificate beside it" in ended.stderr
    assert "next:" not in ended.stderr  # nothing else takes it
    ended = cli.invoke(app, ["info", str(alone)])
    assert "next: put what the export wrote beside it here too: all that begins with alone.onnx" in ended.stdout
    shutil.copy(exported.certificate_file, tmp_path / "alone.onnx.json")
    ended = cli.invoke(app, ["predict", str(picture), "--model", str(alone)])
    assert "certificate" not in ended.stderr
    with alone.open("ab") as file:
        file.write(b"\x72\x01a")  # another metadata entry, which says nothing
    ended = cli.invoke(app, ["predict", str(picture), "--model", str(alone)])
    assert "warning: alone.onnx is not the file of its certificate" in ended.stderr


def test_pictures_of_a_format_that_is_not_read_are_counted(predict: Predict, own_pictures: Path) -> None:
    ring = own_pictures / "val" / "ring"
    (ring / "phone.HEIC").write_bytes(b"")
    (ring / "._phone.HEIC").write_bytes(b"")  # macOS writes such beside it
    code, said, log = predict(ring, "--jsonl")
    assert (code, len(said.splitlines())) == (0, 5)
    assert "warning: 1 file left out: HEIC and the like are not read; convert to JPEG or PNG" in log


def test_a_line_of_json_is_the_classifiers_answer(predict: Predict, exported: Exported, picture_folder: Path) -> None:
    _, said, _ = predict(picture_folder / "val", "--jsonl", "--top", 2)
    with Classifier(exported.path, top=2) as classify:
        for line in said.splitlines():
            record = json.loads(line)
            wanted = classify(record["image"])
            assert [guess["id"] for guess in record["best"]] == [guess.id for guess in wanted.best]
            assert record["best"][0]["probability"] == pytest.approx(wanted.probability, abs=1e-5)


def test_a_picture_comes_through_stdin(predict: Predict, picture_folder: Path) -> None:
    path = next((picture_folder / "val" / "ring").iterdir())
    _, by_name, _ = predict(path)
    code, said, _ = predict("-", stdin=path.read_bytes())
    assert code == 0
    assert said.splitlines() == ["-", *by_name.splitlines()[1:]]
    code, said, log = predict("-", stdin=b"")
    assert (code, said) == (2, "")
    assert "is not a readable picture" in log


@pytest.mark.parametrize("way", ["--jsonl", "--json", None])
def test_one_bad_picture_costs_only_itself(predict: Predict, own_pictures: Path, way: str | None) -> None:
    (own_pictures / "val" / "bad.png").write_text("not a picture")
    (own_pictures / "val" / "empty.png").write_bytes(b"")
    code, said, log = predict(own_pictures / "val", *([way] if way else []))
    assert code == 2
    assert log.count("is not a readable picture") == 2
    if way is None:
        assert len(said.splitlines()) == 15 * 4  # three classes a picture
        return
    records = json.loads(said) if way == "--json" else [json.loads(line) for line in said.splitlines()]
    assert [Path(record["image"]).name for record in records if "error" in record] == ["bad.png", "empty.png"]
    assert sum("best" in record for record in records) == 15


def test_where_none_can_be_read_stdout_stays_empty(predict: Predict, own_pictures: Path) -> None:
    (own_pictures / "bad.png").write_text("not a picture")
    assert predict(own_pictures / "bad.png", "--json")[:2] == (2, "")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no picture is named"),
        (["-", "a.png"], "takes no other beside it"),
        (["a.png", "--files-from", "names.txt"], "pictures are named twice"),
        (["--files-from", "missing.txt"], "cannot read the names in missing.txt"),
        (["a.png", "--json", "--jsonl"], "leave one of them out"),
    ],
)
def test_what_does_not_fit_is_said(predict: Predict, words: list[str], reason: str) -> None:
    code, said, log = predict(*words)
    assert (code, said) == (2, "")
    assert reason in log


def test_lines_come_as_pictures_are_answered(exported: Exported, picture_folder: Path) -> None:
    """A reader at the other end of a pipe gets the first batch while names are still being written."""
    picture = next((picture_folder / "val" / "ring").iterdir())
    words = [sys.executable, "-m", "tinyres", "predict", "--files-from", "-", "--jsonl", "--model", str(exported.path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{picture}\n" * 64)  # two batches: one decoded while the other is classified
        process.stdin.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(32)]
        process.stdin.close()
        rest = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert first == [json.loads(line) for line in rest] == [first[0]] * 32


def test_a_list_without_a_picture_is_an_error(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n\n")
    for way in ([], ["--json"], ["--jsonl"]):
        code, said, log = predict("--files-from", tmp_path / "none.txt", *way)
        assert (code, said, "the list names no picture" in log) == (2, "", True)


@pytest.mark.parametrize("way", ["--jsonl", "--quiet"])
def test_names_need_be_neither_possible_nor_utf8(
    exported: Exported, picture_folder: Path, tmp_path: Path, way: str
) -> None:
    """As the shell has it, on a terminal that takes UTF-8 alone."""
    picture = next((picture_folder / "val" / "ring").iterdir())
    latin = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(latin)).write_bytes(picture.read_bytes())
    names = b"\n".join([latin, b"a" * 5000, b"nul\0.png", os.fsencode(picture)])
    words = [sys.executable, "-m", "tinyres", "predict", "--files-from", "-", way, "--model", str(exported.path)]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    ended = subprocess.run(words, input=names, capture_output=True, env=strict)
    assert ended.returncode == 2
    said, log = ended.stdout.decode(), ended.stderr.decode()
    assert "caf\\udce9.png" in said
    assert str(picture) in said
    assert log.count("error: cannot read") == 2
    assert "defect" not in log


def test_a_folder_that_may_not_be_read_is_not_called_empty(
    exported: Exported, picture_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, *_: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with Classifier(exported.path) as classify:
        (empty,) = answers(classify, Asked([picture_folder], 1))
        monkeypatch.setattr(Path, "open", closed)
        (shut,) = answers(classify, Asked([picture_folder], 1))
    assert str(empty.error) == f"there is no picture in {picture_folder}"
    assert str(shut.error) == f"cannot read {picture_folder}: Permission denied"


@pytest.mark.slow
def test_a_large_picture_that_is_allowed_prints_no_librarys_warning(exported: Exported, tmp_path: Path) -> None:
    Image.new("1", (9500, 9500)).save(tmp_path / "large.png")
    words = [sys.executable, "-m", "tinyres", "predict", str(tmp_path / "large.png"), "--model", str(exported.path)]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 0
    assert "Warning" not in ended.stderr
