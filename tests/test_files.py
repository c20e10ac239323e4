from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tinyres.errors import StorageError
from tinyres.files import atomic_path, remove, sha256_of, sweep, write_text


def test_atomic_path_keeps_the_old_file_and_leaves_nothing_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path_is_as_readable_as_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_write_names_the_file_when_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*file/below"):
        write_text(tmp_path / "file" / "below", "x")


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    write_text(tmp_path / "file", "x")
    for name in ("folder", "file", "absent"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_sha256_of_a_file_longer_than_a_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_sweep_removes_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kept.bin").write_bytes(b"whole")
    with atomic_path(tmp_path / "kept.bin") as temporary:
        left = tmp_path / temporary.name
        shutil.copy(temporary, tmp_path / "copy")
    left.write_bytes(b"half")  # as if the writer had been killed
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "kept.bin"]
