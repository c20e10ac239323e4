"""Build the wheel and the sdist from what git has, and compare: the same source must give the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EPOCH = "1700000000"
"""Of SOURCE_DATE_EPOCH; any time after 1980 does, which is where a zip's calendar begins."""


@dataclass(frozen=True)
class Built:
    """What is uploaded."""

    wheel: Path
    sdist: Path


def build_all(folder: Path) -> Built:
    """Both of them, from a copy of the source in `folder`.

    In the repository itself setuptools would add what an earlier build left in build/lib, deleted files among it.
    """
    source = copy_source(folder / "source")
    wheel = build("wheel", source, folder / "dist")
    sdist = build("sdist", source, folder / "dist")
    return Built(wheel, sdist)


def copy_source(target: Path) -> Path:
    """A copy of each file that git has or would take."""
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode().split("\0")
    for name in names:
        if (path := REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / name)
    return target


def build(kind: str, source: Path, out: Path, *, isolated: bool = True) -> Path:
    """A `wheel` or `sdist` of a source folder, in `out`; isolated, with what a package index has for it."""
    words = [sys.executable, "-m", "build", f"--{kind}", "--outdir", str(out), str(source)]
    words += [] if isolated else ["--no-isolation"]
    ended = subprocess.run(
        words, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, encoding="utf-8", errors="replace"
    )
    if ended.returncode:
        raise SystemExit(f"building the {kind} ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr}")
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def unpack(sdist: Path, folder: Path) -> Path:
    """The source folder of an sdist."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder)  # noqa: S202 - made by us, a moment ago
    (source,) = folder.iterdir()
    return source


def differences(one: Path, other: Path) -> list[str]:
    """The files that two wheels do not have alike: by name, content and the right to be run."""
    first, second = contents(one), contents(other)
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def contents(wheel: Path) -> dict[str, tuple[str, int]]:
    """By name, the hash of a file and its mode."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            each.filename: (hashlib.sha256(archive.read(each)).hexdigest(), each.external_attr >> 16)
            for each in archive.infolist()
        }
