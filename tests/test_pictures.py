from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinyres.pictures import find_pictures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "in/c.webp", ".git/d.png", "in/deep/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*names: str) -> list[str]:
    return [path.as_posix() for path in find_pictures(names)]


def test_a_folder_means_its_visible_pictures_and_those_within_in_sorted_order(folder: Path) -> None:
    assert found(".") == ["a.png", "b.JPG", "in/c.webp", "in/deep/e.png"]
    assert found(str(folder / "in")) == [str(folder / "in" / "c.webp"), str(folder / "in" / "deep" / "e.png")]


def test_a_pattern_means_what_it_matches_and_nothing_hidden(folder: Path) -> None:
    assert found("*.png") == ["a.png"]
    assert found("**/*.png") == ["a.png", "in/deep/e.png"]
    assert found(f"{folder}/in/*") == [f"{folder}/in/c.webp"]  # no folder among the matches


def test_a_file_is_taken_whatever_its_suffix_and_names_keep_their_order(folder: Path) -> None:
    assert found("notes.txt", "in", "a.png") == ["notes.txt", "in/c.webp", "in/deep/e.png", "a.png"]


def test_a_name_with_brackets_that_exists_is_no_pattern(folder: Path) -> None:
    (folder / "[a].png").write_bytes(b"")
    assert found("[a].png") == ["[a].png"]


def test_what_leads_to_nothing_comes_back_so_that_its_opener_says_so(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert found("missing.png", "*.bmp", "empty") == ["missing.png", "*.bmp", "empty"]


def test_a_folder_that_may_not_be_read_comes_back_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found(".") == ["a.png", "b.JPG", "in/c.webp", "in/deep"]


def test_names_that_no_file_can_have_come_back_too(folder: Path) -> None:
    assert found("a" * 5000, "nul\0.png") == ["a" * 5000, "nul\0.png"]
