from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from tinyres.data.members import Members, Names, open_member
from tinyres.data.sources import PictureTree
from tinyres.data.store import ZipStore
from tinyres.errors import DataError

ODD = ["", "a", "ab", "b\n", "é", "\udcff.png", "\ud800", "\uffff", "\U0001f600", "z" * 300]
"""Also names that are no text on disk, and the last of two bytes before the first of four."""


def test_names_come_back_in_their_order() -> None:
    for order in (ODD, ODD[::-1], []):
        names = Names(order)
        assert list(names) == [names[index] for index in range(len(order))] == order
        assert names[1:4] == order[1:4]
    assert names[:] == []
    with pytest.raises(IndexError):
        Names(ODD)[len(ODD)]


def test_a_name_is_found_in_any_order_of_asking() -> None:
    ordered = sorted(ODD)
    names = Names(ordered)
    for places in (range(len(ODD)), reversed(range(len(ODD))), [3, 3, 0, 9, 1]):
        assert all(names.place_of(ordered[place]) == place for place in places)
    for absent in ("0", "ac", "\U0001f601", "z" * 301):
        with pytest.raises(LookupError):
            names.place_of(absent)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_as_zipfile_reads_them(tmp_path: Path, method: int) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(b"what comes before a zip, as in a program that unpacks itself")
    with zipfile.ZipFile(path, "a", method) as archive:
        for number in range(30):
            archive.writestr(f"{number % 7}/{number}é.png", os.urandom(number) * number)
        with archive.open("large.png", "w", force_zip64=True) as member:
            member.write(bytes(100_000))
    with zipfile.ZipFile(path) as archive:
        store = ZipStore(path)
        assert store.names() == sorted(archive.namelist())
        for info in archive.infolist():
            assert store.read(info.filename) == archive.read(info)
            assert store.state(info.filename) == f"{info.file_size},{info.CRC}"


def test_of_several_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a", b"first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", b"last")
    assert ZipStore(tmp_path / "set.zip").read("a") == b"last"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda content: content.replace(b"PK\x03\x04", b"PK\x03\x05"), "no member where the directory says"),
        (lambda content: content.replace(b"picture", b"pixture"), "CRC"),
    ],
)
def test_a_member_that_is_not_what_the_directory_says_is_refused(tmp_path: Path, harm: object, message: str) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"picture")
    path.write_bytes(harm(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        ZipStore(path).read("a")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"picture")
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = Members(archive).find("a")
        assert open_member(file, info).read() == b"picture"
        info.flag_bits |= 1
        with pytest.raises(RuntimeError, match="encrypted"):
            open_member(file, info)


def test_a_process_that_decodes_holds_a_hundred_bytes_a_picture(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for number in range(3000):
            archive.writestr(f"{number % 3}/{number:07}.png", b"")
    source = PictureTree(ZipStore(tmp_path / "set.zip"), place="here")
    job = pickle.dumps(source)
    tracemalloc.start()
    try:
        received: PictureTree = pickle.loads(job)  # noqa: S301 - written a line above
        assert received._store.read("0/0000000.png") == b""
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / 3000 < 150
