"""What this machine can do, what is missing, and the command that mends it. It looks and changes nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from tinyres import environment
from tinyres.errors import BackendUnavailable
from tinyres.files import cache_root
from tinyres.runtime.backends import BACKENDS, BackendInfo, why_unavailable
from tinyres.runtime.cuda import find_device
from tinyres.units import size

if TYPE_CHECKING:
    from pathlib import Path

State = Literal["ok", "note", "problem"]

NEED_FREE_BYTES = 4 * 2**30
"""Tiny ImageNet's archive and cache take 1.6 GB, a ResNet-34 run 0.3 GB."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    state: State
    detail: str
    mend: str
    """A command or an advice; empty if there is nothing to do."""


def examine(cache_dir: Path | None = None) -> list[Finding]:
    """Look at the machine, the backends and the disk."""
    machine = [_python(), _processor(), _gpu(), _engines()]
    return [*machine, *_backends(), _onnxruntime(), _training(), _disk(cache_root(cache_dir))]


def describe(findings: list[Finding]) -> str:
    """The findings for people."""
    marks = {"ok": "ok ", "note": "-  ", "problem": "FIX"}
    lines = []
    for found in findings:
        lines.append(f"{marks[found.state]} {found.name:22} {found.detail}")
        if found.mend:
            lines.append(f"    {'':22} {found.mend}")
    return "\n".join(lines)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", version, "")


def _processor() -> Finding:
    machine = environment.capture()
    fast = [
        name
        for name, flags in {
            "int8 (VNNI)": ("avx512_vnni", "avx_vnni"),
            "bf16": ("avx512_bf16", "amx_bf16"),
        }.items()
        if set(flags) & set(machine.instruction_sets)
    ]
    memory = f", {size(machine.memory_bytes)}" if machine.memory_bytes else ""
    detail = f"{machine.cpu}, {machine.cores} cores{memory}; fast arithmetic: {', '.join(['fp32', *fast])}"
    return Finding("processor", "ok", detail, "")


def _backends() -> list[Finding]:
    found = []
    for name, info in BACKENDS.items():
        missing = why_unavailable(name)
        if missing is None:
            found.append(Finding(name, "ok", f"{info.package} {_version_of_import(info)}", ""))
        else:
            found.append(Finding(name, "note", "not installed", missing.hint or ""))
    return found


def _onnxruntime() -> Finding:
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name) != "unknown"]
    if len(both) == 2:
        detail = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files"
        return Finding(
            "onnxruntime packages", "problem", detail, "pip uninstall -y onnxruntime onnxruntime-gpu, then one"
        )
    return Finding("onnxruntime packages", "ok", both[0] if both else "none", "")


def _training() -> Finding:
    missing = [
        name
        for name in ("torch", "torchvision", "onnx", "safetensors", "matplotlib")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        return Finding("training and export", "note", f"without {', '.join(missing)}", "pip install 'tinyres[train]'")
    return Finding("training and export", "ok", f"torch {_version('torch')}", "")


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "note", "no NVIDIA driver: training and bench use the processor", "")
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", "note", "an NVIDIA driver is here, torch is not", "pip install 'tinyres[train]'")
    import torch

    if not torch.cuda.is_available():
        detail = f"an NVIDIA driver is here, but torch {torch.__version__} finds no device"
        return Finding(
            "gpu", "problem", detail, f"the driver must support CUDA {torch.version.cuda}: nvidia-smi shows it"
        )
    return Finding("gpu", "ok", environment.capture().gpu or "", "")


def _engines() -> Finding:
    """The GPU as the runners of engines see it, through NVIDIA's bindings."""
    try:
        device = find_device()
    except BackendUnavailable as exc:
        return Finding("gpu for engines", "note", str(exc), exc.hint or "" if "bindings" in str(exc) else "")
    capability = f"compute capability {device.compute_capability}"
    return Finding("gpu for engines", "ok", f"{device.name}, {capability}, driver for CUDA {device.driver}", "")


def _disk(cache: Path) -> Finding:
    home = cache
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    detail = f"{size(free)} free at {cache}"
    if not os.access(home, os.W_OK):
        return Finding(
            "cache", "problem", f"{cache} cannot be written", "--cache or TINYRES_CACHE names another folder"
        )
    if free < NEED_FREE_BYTES:
        return Finding("cache", "problem", detail, "make room, or name another folder with --cache or TINYRES_CACHE")
    return Finding("cache", "ok", detail, "")


def _version_of_import(info: BackendInfo) -> str:
    """Of the distribution that brings a backend's package; its name may be another."""
    names = [info.distribution] if info.distribution else metadata.packages_distributions().get(info.package, [])
    return _version(names[0]) if names else "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
