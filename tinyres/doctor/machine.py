"""The interpreter, the processor and the terminal."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from tinyres import environment
from tinyres.doctor.finding import Finding
from tinyres.doctor.ranges import fits
from tinyres.units import size

BF16 = ("avx512_bf16", "amx_bf16")


def python() -> Finding:
    """Whether tinyres promises to run on this Python."""
    version = platform.python_version()
    try:
        wanted = metadata.metadata("tinyres")["Requires-Python"] or ""
    except (metadata.PackageNotFoundError, KeyError):
        wanted = ""
    if not fits(version, wanted):
        return Finding("python", "problem", f"{version}, and tinyres needs {wanted}", f"install a Python {wanted}")
    return Finding("python", "ok", version)


def processor() -> list[Finding]:
    """The processor, and whether it computes bf16 and int8 fast."""
    here = environment.capture()
    flags = set(here.instruction_sets)
    kinds = {"int8 (VNNI)": ("avx512_vnni", "avx_vnni"), "bf16": BF16}
    fast = ", ".join(["fp32", *(name for name, wanted in kinds.items() if flags & set(wanted))])
    memory = f", {size(here.memory_bytes)}" if here.memory_bytes else ""
    found = [Finding("processor", "ok", f"{here.cpu}, {here.cores} cores{memory}; fast arithmetic: {fast}")]
    if "avx2" in flags and not flags & set(BF16):
        detail = f"no {' or '.join(BF16)}: training computes in fp32, PyTorch's bf16 ways are left out of a bench"
        found.append(Finding("bf16", "note", detail, "--precision int8 is what makes files fast on this processor"))
    return found


def terminal() -> Finding:
    """Whether names of classes and files can be shown as they are."""
    encodings = {"stdout": sys.stdout.encoding, "file names": sys.getfilesystemencoding()}
    wrong = [f"{what}: {name}" for what, name in encodings.items() if (name or "").lower().replace("-", "") != "utf8"]
    if wrong:
        detail = f"not UTF-8 ({', '.join(wrong)}): characters that it lacks are shown as \\x.."
        return Finding("terminal", "note", detail, "set PYTHONUTF8=1, or a UTF-8 locale such as LC_ALL=C.UTF-8")
    return Finding("terminal", "ok", "UTF-8")
