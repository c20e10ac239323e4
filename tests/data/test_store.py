from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from tinyres.data import store
from tinyres.data.store import FolderStore, ZipStore
from tinyres.errors import DataError


def make_zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_zip_cut_short_says_so(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip", a=b"1" * 1000, b=b"2" * 1000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"set\.zip is not a readable zip") as caught:
        ZipStore(path).names()
    assert caught.value.hint


def test_a_damaged_member_is_a_data_error(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "set.zip", a=bytes(range(256)) * 8)
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="cannot read a in"):
        ZipStore(path).read("a")


def test_a_member_that_inflates_past_the_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(DataError, match="inflates to 101 bytes"):
        ZipStore(make_zip(tmp_path / "bomb.zip", a=b"\0" * 101)).read("a")


def test_names_that_climb_out_are_only_names(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "slip.zip", **{"../../escaped.png": b"x"})
    assert ZipStore(path).names() == []
    assert not (tmp_path.parent / "escaped.png").exists()


def test_the_state_of_a_member_follows_its_content_not_its_place(tmp_path: Path) -> None:
    first = ZipStore(make_zip(tmp_path / "a.zip", x=b"1", y=b"2")).state("x")
    same = ZipStore(make_zip(tmp_path / "b.zip", y=b"5", x=b"1")).state("x")
    other = ZipStore(make_zip(tmp_path / "c.zip", x=b"3", y=b"2")).state("x")
    assert first == same != other


def test_the_state_of_a_file_follows_its_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = FolderStore(tmp_path).state("a")
    assert FolderStore(tmp_path).state("a") == before
    os.utime(tmp_path / "a", (1, 1))
    assert FolderStore(tmp_path).state("a") != before


def test_a_link_to_nothing_has_a_state_too(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "nothing")
    assert FolderStore(tmp_path).state("a") == ""


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [name for name in FolderStore(tmp_path).names() if name.endswith(".png")] == ["a/1.png"]
