"""A few of each kind of bad input; `make fuzz` tries thousands. What it found stays in `test_bad_input.py` and here."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest
from fuzzing import commands, mutations, zips
from fuzzing.readers import Reader

from tinyres.data.dataset import read_cache
from tinyres.errors import DataError

pytestmark = pytest.mark.slow

DIGITS = b'{"a": [1, 2, {"b": "c"}], "d": 0.5}'


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "kit"
    fuzz.make_kit(folder)
    return folder


def test_every_reader_reads_its_file_as_it_was_written(kit: Path, tmp_path: Path) -> None:
    for number, reader in enumerate(fuzz.readers(kit)):
        if not reader.name.startswith("command"):  # these read what they are given, which is the same file for all
            home = Path(shutil.copytree(reader.home, tmp_path / str(number), symlinks=True))
            reader.read(home)


def test_bad_input_is_read_or_refused_in_one_line(kit: Path) -> None:
    found = fuzz.fuzz(kit, cases=5, jobs=2)
    assert found["findings"] == []
    outcomes: Any = found["outcomes"]
    assert found["cases"] >= 280
    assert sum(counts["read"] for counts in outcomes.values()) < found["cases"]  # some of them are damaged indeed


def test_every_command_is_fuzzed(kit: Path) -> None:
    names = {reader.name for reader in commands.command_readers(kit)}
    assert {"command", "command train", "command data prepare", "command predict", "command doctor"} <= names


def test_a_finding_is_found(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(_: Path) -> None:
        raise KeyError("x")

    def endless(_: Path) -> None:
        while True:
            pass

    def talkative(_: Path) -> None:
        raise DataError("two\nlines")

    def swelling(_: Path) -> None:
        b"x" * (64 * 2**20)

    monkeypatch.setattr(fuzz, "GROWTH", 32 * 2**20)
    said: list[str] = []
    for read in (defect, endless, talkative, swelling):
        monkeypatch.setattr(fuzz, "SLOWEST_S", 0.3 if read is endless else 20)
        reader = Reader("r", kit / "pictures", "drawn.png", read)
        outcome, words = fuzz.try_case(reader, 0, 0, tmp_path)
        assert outcome == "finding"
        said.append(words)
    assert said[0].startswith("KeyError: 'x' (test_fuzz.py:")
    assert said[1:3] == ["more than 0.3 s", "DataError of no words or several lines: 'two\\nlines'"]
    assert said[3].startswith("it held ")


def test_what_is_wrong_in_how_a_command_ended_is_found() -> None:
    wrong = commands._wrong
    assert wrong([], 0, "done\n", "") == ""
    assert wrong([], 7, "", "error: x") == "exit code 7"
    assert "KeyError" in wrong(
        [], 1, "", "error: KeyError: 'x'\nhint: this is a defect of tinyres; --debug shows where"
    )
    assert wrong([], 2, "", "") == "it failed and said nothing"
    assert wrong([], 1, "", "Traceback (most recent call last)") == "a traceback"
    assert wrong([], 2, "", "\n" * 99 + "x") == "100 lines on stderr"
    assert wrong(["predict"], 2, "", "error: x\n" * 100) == ""
    assert "control character" in wrong([], 0, "\x1b[2J", "")
    assert "no JSON" in wrong(["--json"], 0, "done", "")
    assert wrong(["--json"], 0, "{}", "") == ""


def test_text_that_becomes_a_tag_in_the_page_is_found() -> None:
    from fuzzing.readers import Defect, _require_harmless_page

    _require_harmless_page("<p>fine &lt;script&gt;</p>")
    for page in ("<p><script>1</script></p>", '<path class="a" onclick="1">', "<img src=x>"):
        with pytest.raises(Defect):
            _require_harmless_page(page)


DAMAGES: dict[str, tuple[mutations.Damage, bytes]] = {
    "bytes": (mutations.by_bytes, bytes(range(256)) * 20),
    "lines": (mutations.by_lines, b"one\ntwo\nthree\n"),
    "json": (mutations.by_json, DIGITS),
    "values": (mutations.by_values, DIGITS),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_case_is_the_same_at_every_run_and_another_than_the_next(name: str) -> None:
    damage, content = DAMAGES[name]
    cases, again = (
        [damage(content, random.Random(f"r 0 {number}")) for number in range(200)]  # noqa: S311
        for _ in range(2)
    )
    assert cases == again
    assert sum(case != content for case in cases) > 150
    assert len(set(cases)) > 50


def test_values_of_json_keep_their_types_and_nodes_do_not() -> None:
    kinds = set()
    for number in range(300):
        rng = random.Random(number)  # noqa: S311
        assert set(json.loads(mutations.by_values(DIGITS, rng))) == {"a", "d"}
        try:
            tree = json.loads(mutations.by_json(DIGITS, rng))
        except (ValueError, RecursionError) as exc:
            kinds.add(type(exc).__name__)
        else:
            kinds.add(type(tree.get("d")).__name__ if isinstance(tree, dict) else "other")
    assert kinds >= {"RecursionError", "UnicodeDecodeError", "NoneType", "float", "str", "list"}


def test_damaged_headers_leave_the_rest_of_the_file_as_it_was(kit: Path) -> None:
    npz = (kit / "export" / "fp32.onnx.golden.npz").read_bytes()
    tensors = (kit / "run" / "best.safetensors").read_bytes()
    model = (kit / "export" / "fp32.onnx").read_bytes()
    for number in range(60):
        rng = random.Random(number)  # noqa: S311
        with zipfile.ZipFile(io.BytesIO(mutations.by_arrays(npz, rng))) as archive:
            assert len(archive.namelist()) >= 5
        assert mutations.by_tensor_header(tensors, rng)[-1000:] == tensors[-1000:]
        assert abs(len(mutations.by_model_metadata(model, rng)) - len(model)) < 2_100_000


def test_an_honest_zip_of_ours_is_one_for_everybody(kit: Path) -> None:
    content = (kit / "zip" / "data.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(zips.written(zips.pictures_of(content)))) as ours:
        assert ours.testzip() is None
        with zipfile.ZipFile(io.BytesIO(content)) as theirs:
            assert {name: ours.read(name) for name in ours.namelist()} == {n: theirs.read(n) for n in theirs.namelist()}


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[:60] + b"(" * 20 + content[80:],  # a header that is no Python
        lambda content: content[:64],
        lambda content: content.replace(b"<i8", b"<f8"),
        lambda content: content[:-8] + (99).to_bytes(8, "little"),  # a class that does not exist
    ],
)
def test_labels_of_a_cache_that_cannot_be_are_a_data_error(
    kit: Path, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    folder = Path(shutil.copytree(kit / "cache", tmp_path / "cache"))
    path = folder / "val.labels.npy"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DataError, match=r"is damaged|does not fit"):
        read_cache(folder, name="c")


def test_a_manifest_without_a_split_is_a_data_error(kit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kit / "cache", tmp_path / "cache"))
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"val"', '"vla"'))
    with pytest.raises(DataError, match="does not fit its manifest"):
        read_cache(folder, name="c")


def test_pictures_of_another_type_are_a_data_error(kit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kit / "cache", tmp_path / "cache"))
    path = folder / "val.images.npy"
    np.save(path, np.load(path).astype(np.int8))
    with pytest.raises(DataError, match="does not fit its manifest"):
        read_cache(folder, name="c")
