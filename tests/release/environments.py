"""Bare environments, and programs whose failure is ours: what the checks of an installed tinyres share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"
NO_WHEEL = re.compile("No matching distribution|no usable wheels|no wheels with")
"""What pip and uv say of a package that has none for a Python."""


class NoWheelError(Exception):
    """A package has no release for this Python that installs without a compiler."""


def environment(
    home: Path,
    python: str | Path,
    *requirements: str,
    constraints: Path | None = CONSTRAINTS,
    wheels_alone: bool = False,
) -> Path:
    """A new virtual environment with what is required; returns its folder of programs. Errors: NoWheelError."""
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", python, home, cwd=home.parent)
    else:
        run(python, "-m", "venv", home, cwd=home.parent)
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    install(binaries, *requirements, constraints=constraints, wheels_alone=wheels_alone)
    return binaries


def install(
    binaries: Path, *requirements: str, constraints: Path | None = CONSTRAINTS, wheels_alone: bool = False
) -> None:
    """Install what is required into an environment that is there. Errors: NoWheelError, if wheels alone may be used."""
    words: list[object] = [binaries / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    words += ["--no-cache-dir", "--no-compile"]
    if uv := shutil.which("uv"):
        words = [uv, "pip", "install", "--quiet", "--no-cache", "--python", binaries / "python"]
    words += [*requirements, *(("-c", constraints) if constraints else ())]
    words += ["--only-binary", ":all:"] if wheels_alone else []
    done = _run(words, binaries.parent.parent)
    if done.returncode:
        said = done.stderr.strip()
        reasons = [line.strip() for line in said.splitlines() if NO_WHEEL.search(line)]
        if wheels_alone and reasons:
            raise NoWheelError(reasons[0])
        raise SystemExit(f"{_shown(words)} ended with {done.returncode}:\n{said}")


def run(*words: object, cwd: Path, quiet: bool = False) -> None:
    """Run a program; its failure is ours."""
    done = _run(words, cwd, stdout=subprocess.PIPE if quiet else None)
    if done.returncode:
        raise SystemExit(f"{_shown(words)} ended with {done.returncode}:\n{done.stderr}")


def ended(code: int, *words: object, cwd: Path, hint: str = "", places: dict[str, str] | None = None) -> None:
    """Run a program that must end with `code`, say `hint` on stderr, and show no traceback where it fails."""
    done = _run(words, cwd, environment={**os.environ, **(places or {})})
    if done.returncode != code or hint not in done.stderr or (code and "Traceback" in done.stderr):
        raise SystemExit(
            f"{_shown(words)} ended with {done.returncode}; wanted: {code}, and {hint!r} said\n"
            f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        )


def _run(
    words: Sequence[object],
    cwd: Path,
    *,
    stdout: int | None = subprocess.PIPE,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def _shown(words: Sequence[object]) -> str:
    return " ".join(map(str, words))[:300]
