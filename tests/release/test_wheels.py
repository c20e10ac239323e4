"""What `make test-install` compares wheels by finds what differs."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY
from wheels import build, copy_source, differences

import tinyres


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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it is uploaded, but built with the setuptools that is here: an isolated build asks a package index."""
    folder = tmp_path_factory.mktemp("wheel")
    return build("wheel", copy_source(folder / "source"), folder / "dist", isolated=False)


@pytest.mark.slow
def test_the_wheel_is_small_without_the_weights(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {each.filename: each.compress_size for each in archive.infolist()}
    weights = [name for name in packed if re.fullmatch(r"tinyres/weights/\w+/final\.safetensors", name)]
    assert weights == ["tinyres/weights/nano/final.safetensors"]
    assert wheel.stat().st_size - packed[weights[0]] < 10**6
    assert max(size for name, size in packed.items() if name not in weights) < 100_000


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(each) for each in archive.namelist()]
        metadata = archive.read(next(name.as_posix() for name in names if name.name == "METADATA")).decode()
    assert {name.parts[0] for name in names} == {"tinyres", f"tinyres-{tinyres.__version__}.dist-info"}
    assert not [name for name in names if {"tests", "results", "docs", "__pycache__", "build"} & {*name.parts}]
    endings = {".py", ".typed", ".md", ".json", ".html", ".mjs", ".cpp", ".hpp", ".txt", ".sh", ".in", ".css"}
    pictures = [name.as_posix() for name in names if name.suffix == ".png"]
    assert pictures == ["tinyres/embed/browser/page.png", "tinyres/weights/nano/curves.png"]  # their pages show them
    assert {name.suffix for name in names if name.parts[0] == "tinyres"} == endings | {".png", ".safetensors"}
    sources = {name for folder in ("tinyres", "export", "bench") for name in (REPOSITORY / folder).rglob("*.py")}
    held = {name.name for name in names}
    assert not [name for name in sources if name.name not in held]
    assert re.search(r"^Keywords: .*\bonnx\b", metadata, re.MULTILINE)
    assert len(re.findall(r"^Provides-Extra: ", metadata, re.MULTILINE)) == 12
