"""What this machine can do, what is missing, and the command that mends it. It looks and changes nothing."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from tinyres.doctor import gpus, machine, packages, places
from tinyres.doctor.finding import Finding
from tinyres.files import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Finding", "describe", "examine"]


def examine(cache_dir: Path | None = None, runs: Path = Path("runs")) -> list[Finding]:
    """Look at the machine, the packages and the disk; what cannot be looked at is a finding too."""
    cache = cache_root(cache_dir)
    probes: dict[str, Callable[[], Finding | list[Finding]]] = {
        "python": machine.python,
        "processor": machine.processor,
        "terminal": machine.terminal,
        "gpu": gpus.gpu,
        "gpu for engines": gpus.engines,
        "cuda": gpus.cuda,
        "backends": packages.backends,
        "onnxruntime packages": packages.onnxruntime,
        "training and export": packages.training,
        "versions": packages.versions,
        "cache": lambda: places.cache(cache),
        "leftovers": lambda: places.leftovers(cache, runs),
        "runs": lambda: places.runs(runs),
    }
    found: list[Finding] = []
    for name, probe in probes.items():
        try:
            answer = probe()
        except Exception as exc:  # noqa: BLE001 - a machine that is broken enough is what a doctor is called for
            reason = str(exc).partition("\n")[0]
            answer = Finding(name, "note", f"could not be looked at: {type(exc).__name__}: {reason}")
        found += answer if isinstance(answer, list) else [answer]
    return found


def describe(findings: list[Finding], width: int = 120) -> str:
    """The findings for people; what mends them is never broken into lines, so that it can be copied."""
    marks = {"ok": "ok ", "note": "-  ", "problem": "FIX"}
    indent = " " * 27
    lines = []
    for found in findings:
        first = f"{marks[found.state]} {found.name:22} "
        lines += wrap(
            first + found.detail, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        if found.mend:
            lines.append(" " * max(4, min(len(indent), width - len(found.mend))) + found.mend)
    return "\n".join(lines)
