"""The backends, and whether the installed packages are those that tinyres was made for."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata

from tinyres.doctor.finding import Finding
from tinyres.doctor.ranges import fits
from tinyres.runtime.backends import BACKENDS, BackendInfo, why_unavailable

VARIANTS = ("", "-gpu", "-cu13", "-cu12")
"""What may follow a package's name in that of its distribution."""
TRAINING = ("torch", "torchvision", "onnx", "safetensors", "matplotlib")


def backends() -> list[Finding]:
    """Each backend: its version, or what installs it."""
    found = []
    for name, info in BACKENDS.items():
        missing = why_unavailable(name)
        if missing is None:
            found.append(Finding(name, "ok", f"{info.package} {_version_of_import(info)}"))
        else:
            found.append(Finding(name, "note", "not installed", missing.hint or ""))
    return found


def onnxruntime() -> Finding:
    """ONNX Runtime comes in two packages that own the same files."""
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if version(name)]
    if len(both) == 2:
        detail = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files"
        mend = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'tinyres[gpu]' or 'tinyres[cpu]'"
        return Finding("onnxruntime packages", "problem", detail, mend)
    return Finding("onnxruntime packages", "ok", both[0] if both else "none")


def training() -> Finding:
    """What training and export need beyond the base install."""
    missing = [name for name in TRAINING if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("training and export", "note", f"without {', '.join(missing)}", "pip install 'tinyres[train]'")
    return Finding("training and export", "ok", f"torch {version('torch')}")


def versions() -> Finding:
    """Whether the installed packages lie in the ranges that tinyres declares."""
    wrong = {}
    for name, ranges in _declared().items():
        here = version(name)
        if here is None and "" in ranges:
            wrong[f"{name}{ranges['']}"] = f"{name} is not installed"
        # Two extras may want different ones (for CUDA 12 and 13): that of either will do.
        elif here is not None and not any(fits(here, wanted) for wanted in ranges.values()):
            first = next(iter(ranges.values()))
            wrong[f"{name}{first}"] = f"{name} {here} is outside {first}"
    if wrong:
        mend = "pip install " + " ".join(f"'{requirement}'" for requirement in wrong)
        return Finding("versions", "problem", "; ".join(wrong.values()), mend)
    return Finding("versions", "ok", "within the ranges that tinyres declares")


def _declared() -> dict[str, dict[str, str]]:
    """Package -> extra (empty for the base) -> range, as the installed tinyres says.

    TensorRT is left out: its backends take versions that pip would not choose, Jetson's own among them, and check them.
    """
    declared: dict[str, dict[str, str]] = {}
    for requirement in metadata.requires("tinyres") or []:
        text, _, marker = requirement.partition(";")
        match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*(.*)", text.strip())
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if match and not match[1].startswith(("tinyres", "tensorrt")) and (extra is None or extra[1] != "dev"):
            declared.setdefault(match[1], {})[extra[1] if extra else ""] = match[2].strip("() ")
    return declared


def _version_of_import(info: BackendInfo) -> str:
    """Of the distribution that brings a backend's package, by its known names: to list all that is there is slow."""
    names = [info.distribution] if info.distribution else [info.package + variant for variant in VARIANTS]
    return next(filter(None, map(version, names)), "of an unknown version")


def version(package: str) -> str | None:
    """The installed version; None without one."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
