"""A few damaged files for every reader; `make fuzz` tries thousands. What it found stays here."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pytest

from tinyres.data.dataset import read_cache
from tinyres.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "kit"
    fuzz.make_kit(folder)
    return folder


def test_every_reader_reads_its_file_as_it_was_written(kit: Path, tmp_path: Path) -> None:
    for number, reader in enumerate(fuzz.readers(kit)):
        home = Path(shutil.copytree(reader.home, tmp_path / str(number)))
        reader.read(home)


def test_damaged_files_are_read_or_refused_in_one_line(kit: Path) -> None:
    found = fuzz.fuzz(kit, cases=8)
    assert found["findings"] == []
    outcomes: Any = found["outcomes"]
    assert found["cases"] == 8 * len(outcomes) >= 250
    assert sum(counts["read"] for counts in outcomes.values()) < found["cases"]  # some of them are damaged indeed


def test_a_finding_is_found(kit: Path, tmp_path: Path) -> None:
    def defect(_: Path) -> None:
        raise KeyError("x")

    def endless(_: Path) -> None:
        while True:
            pass

    def talkative(_: Path) -> None:
        raise DataError("two\nlines")

    said: list[str] = []
    fuzz.SLOWEST_S, usual = 0.2, fuzz.SLOWEST_S  # type: ignore[assignment]
    try:
        for read in (defect, endless, talkative):
            reader = fuzz.Reader("r", kit / "pictures", "drawn.png", read)
            outcome, words = fuzz.try_case(reader, 0, 0, tmp_path)
            assert outcome == "finding"
            said.append(words)
    finally:
        fuzz.SLOWEST_S = usual
    assert said[0].startswith("KeyError: 'x' (test_fuzz.py:")
    assert said[1:] == ["more than 0.2 s", "DataError of no words or several lines: 'two\\nlines'"]


def test_a_case_is_the_same_at_every_run() -> None:
    content = bytes(range(256)) * 20
    cases = [fuzz.mutated(content, random.Random(f"r 0 {number}")) for number in range(200)]  # noqa: S311
    assert cases == [fuzz.mutated(content, random.Random(f"r 0 {number}")) for number in range(200)]  # noqa: S311
    assert sum(case != content for case in cases) > 180


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
