"""The GPU as training and as engines see it, and whether driver and packages are for the same CUDA.

Torch is imported only where an NVIDIA driver is: it takes seconds.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import sys
from pathlib import Path

from tinyres import environment
from tinyres.doctor.finding import Finding
from tinyres.doctor.packages import version
from tinyres.doctor.ranges import major
from tinyres.errors import BackendUnavailable
from tinyres.runtime.cuda import find_device

AMPERE = 8
"""The first major compute capability with bf16 arithmetic."""
BUILT_FOR = {"torch": ("torch", "version.py"), "onnxruntime-gpu": ("onnxruntime", "capi/build_and_package_info.py")}
"""A package whose build notes its CUDA version in a file, which is read instead of imported."""
TENSORRT = ("tensorrt", "tensorrt-rtx")


def gpu() -> list[Finding]:
    """The GPU that training and the bench use."""
    if shutil.which("nvidia-smi") is None:
        return [Finding("gpu", "note", "no NVIDIA driver: training and bench use the processor")]
    if importlib.util.find_spec("torch") is None:
        return [Finding("gpu", "note", "an NVIDIA driver is here, torch is not", "pip install 'tinyres[train]'")]
    import torch

    if torch.version.cuda is None:
        detail = f"an NVIDIA driver is here, but torch {torch.__version__} is built without CUDA"
        return [Finding("gpu", "problem", detail, "pip uninstall -y torch torchvision, then pip install a CUDA build")]
    if not torch.cuda.is_available():
        detail = f"an NVIDIA driver is here, but torch {torch.__version__} finds no device"
        mend = f"the driver must support CUDA {torch.version.cuda}, and the GPU be visible: nvidia-smi shows both"
        return [Finding("gpu", "problem", detail, mend)]
    found = [Finding("gpu", "ok", environment.capture().gpu or "")]
    if torch.cuda.get_device_capability(0)[0] < AMPERE:
        detail = "this GPU is older than Ampere: training computes in fp32, and bf16 files do not run"
        found.append(Finding("bf16", "note", detail, "--precision fp16 is what makes files fast on this GPU"))
    return found


def engines() -> Finding:
    """The GPU as the runners of engines see it, through NVIDIA's bindings."""
    try:
        device = find_device()
    except BackendUnavailable as exc:
        return Finding("gpu for engines", "note", str(exc), exc.hint or "" if "bindings" in str(exc) else "")
    capability = f"compute capability {device.compute_capability}"
    return Finding("gpu for engines", "ok", f"{device.name}, {capability}, driver for CUDA {device.driver}")


def cuda() -> Finding:
    """Whether what is installed is for one CUDA version, and the driver new enough for it.

    A driver runs what was built for its own major version or an older one.
    """
    built = built_for()
    listed = ", ".join(f"{name} for {wanted}" for name, wanted in built.items())
    driver = driver_version()
    if driver is not None and (newer := [name for name, wanted in built.items() if major(wanted) > major(driver)]):
        needed = max(major(built[name]) for name in newer)
        detail = f"the driver is for CUDA {driver}, too old for {', '.join(newer)} ({listed})"
        mend = f"install an NVIDIA driver for CUDA {needed}, or builds of {', '.join(newer)} for CUDA {major(driver)}"
        return Finding("cuda", "problem", detail, mend)
    if len({major(wanted) for wanted in built.values()}) > 1:
        leader = major(built.get("torch") or next(iter(built.values())))
        others = [name for name, wanted in built.items() if major(wanted) != leader]
        mend = " and ".join(_install(name, leader) for name in others)
        return Finding("cuda", "problem" if driver else "note", f"packages for different versions: {listed}", mend)
    said = f"driver for CUDA {driver}" if driver else "no driver"
    return Finding("cuda", "ok", f"{said}; {listed or 'no package that needs CUDA'}")


def built_for() -> dict[str, str]:
    """Package -> the CUDA version it was built for. Nothing is imported."""
    found = {}
    for name, (package, file) in BUILT_FOR.items():
        if version(name) and (cuda := _noted(package, file)):
            found[name] = cuda
    for name in TENSORRT:
        for variant in (12, 13):
            if version(f"{name}-cu{variant}"):
                found[name] = str(variant)
    if bindings := version("cuda-bindings"):
        found["cuda-bindings"] = ".".join(bindings.split(".")[:2])
    return found


def driver_version() -> str | None:
    """The newest CUDA version that the driver knows; None without a driver."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value == 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def _noted(package: str, file: str) -> str | None:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        try:
            text = Path(folder, file).read_text(encoding="utf-8")
        except OSError:
            continue
        if match := re.search(r"^cuda(?:_version)?\b[^=\n]*=\s*['\"]([\d.]+)", text, re.MULTILINE):
            return match[1]
    return None


def _install(name: str, wanted: int) -> str:
    """The command that brings the build of `name` for a CUDA version, where its name or version tells."""
    if name in TENSORRT:
        return f"pip install {name}-cu{wanted}"
    if name == "cuda-bindings":
        return f"pip install 'cuda-bindings>={wanted},<{wanted + 1}'"
    return f"pip install a build of {name} for CUDA {wanted}"
