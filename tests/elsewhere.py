"""What the tests of `embed/` start: programs of other languages, and environments of their own under `build/embed`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EMBED = REPOSITORY / "embed"
BUILD = REPOSITORY / "build" / "embed"
"""What is installed and compiled stays here between runs."""
REAL_ZIP = REPOSITORY.parent / "shared" / "data" / "tiny-imagenet-200.zip"
PHOTOS = sorted((REPOSITORY / "docs" / "pictures").glob("*.jpg"))


@dataclass(frozen=True)
class Ended:
    """A program that has run."""

    code: int
    out: str
    err: str


def run(*words: object, cwd: Path | None = None, stdin: str | None = None, timeout: float = 300) -> Ended:
    """Run a program to its end; its failure is the caller's to judge."""
    ended = subprocess.run(
        [str(word) for word in words], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=timeout
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def done(*words: object, cwd: Path | None = None, timeout: float = 600) -> str:
    """Run a program that must succeed; its output."""
    ended = run(*words, cwd=cwd, timeout=timeout)
    assert ended.code == 0, f"{words}\n{ended.out[-3000:]}\n{ended.err[-3000:]}"
    return ended.out


def environment(name: str, *requirements: str) -> Path:
    """The programs of a virtual environment with `requirements`, made once under build/."""
    bounds = REPOSITORY / "constraints.txt"
    home, wanted = BUILD / name, "\n".join((*requirements, bounds.read_text()))
    python = home / "bin" / "python"
    if not (home / "has").is_file() or (home / "has").read_text() != wanted:
        done(sys.executable, "-m", "venv", "--clear", home)
        done(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", bounds, *requirements)
        (home / "has").write_text(wanted)
    return home / "bin"
