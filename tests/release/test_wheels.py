"""What `make test-install` compares wheels by finds what differs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from wheels import copy_source, differences


def write_wheel(path: Path, files: dict[str, str], mode: int = 0o644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
    return path


def test_wheels_of_the_same_files_in_another_order_do_not_differ(tmp_path: Path) -> None:
    one = write_wheel(tmp_path / "1.whl", {"a.py": "1", "b.py": "2"})
    other = write_wheel(tmp_path / "2.whl", {"b.py": "2", "a.py": "1"})
    assert differences(one, other) == []


@pytest.mark.parametrize("files", [{"a.py": "2"}, {}, {"a.py": "1", "b.py": ""}], ids=["changed", "missing", "added"])
def test_a_file_that_is_changed_missing_or_added_is_a_difference(tmp_path: Path, files: dict[str, str]) -> None:
    one, other = write_wheel(tmp_path / "1.whl", {"a.py": "1"}), write_wheel(tmp_path / "2.whl", files)
    assert differences(one, other) == [sorted({"a.py": "1"}.items() ^ files.items())[-1][0]]


def test_a_right_to_be_run_is_a_difference(tmp_path: Path) -> None:
    one = write_wheel(tmp_path / "1.whl", {"a.sh": "1"}, 0o755)
    assert differences(one, write_wheel(tmp_path / "2.whl", {"a.sh": "1"})) == ["a.sh"]


def test_what_is_built_holds_no_file_that_git_ignores(tmp_path: Path) -> None:
    copy_source(tmp_path / "source")
    assert (tmp_path / "source" / "weights" / "nano" / "final.safetensors").is_file()
    assert not [path for path in (tmp_path / "source").rglob("*") if path.name in {"build", "__pycache__", ".venv"}]
