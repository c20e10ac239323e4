"""The backends by name. Adding one is a file beside this one and a line in `BACKENDS`."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres.errors import BackendUnavailable, TinyresError, UsageError, missing_extra, require_choice
from tinyres.runtime.metadata import stored_precision
from tinyres.runtime.runner import Runner

if TYPE_CHECKING:
    from tinyres.runtime.metadata import Target
    from tinyres.runtime.runner import Backend


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What is known of a backend before its library is imported."""

    module: str
    package: str
    """The import that may be missing."""
    extra: str
    """What to install it with."""
    suffix: str
    """Of the files it opens."""
    distribution: str = ""
    """What must be installed where several offer the same import; empty: any."""
    int8: Target = "cpu"
    """How int8 is laid out for it."""
    ways: tuple[str, ...] = ()
    """In which it can run the same file, the plainest first; empty: in one."""


BACKENDS = {
    "onnxruntime-cpu": BackendInfo("tinyres.runtime.onnxruntime_cpu", "onnxruntime", "cpu", ".onnx"),
    "onnxruntime-cuda": BackendInfo(
        "tinyres.runtime.onnxruntime_cuda", "onnxruntime", "gpu", ".onnx", distribution="onnxruntime-gpu", int8="cuda"
    ),
    "onnxruntime-tensorrt": BackendInfo(
        "tinyres.runtime.onnxruntime_tensorrt",
        "onnxruntime",
        "gpu",
        ".onnx",
        distribution="onnxruntime-gpu",
        int8="tensorrt",
    ),
    "openvino": BackendInfo("tinyres.runtime.openvino_cpu", "openvino", "openvino", ".onnx"),
    "tensorrt": BackendInfo("tinyres.runtime.tensorrt", "tensorrt", "trt", ".engine", int8="tensorrt"),
    "tensorrt-rtx": BackendInfo("tinyres.runtime.tensorrt_rtx", "tensorrt_rtx", "rtx", ".engine", int8="tensorrt"),
    "pytorch": BackendInfo(
        "tinyres.runtime.pytorch",
        "torch",
        "train",
        ".safetensors",
        ways=("eager", "channels_last", "compiled", "eager bf16", "channels_last bf16", "compiled bf16"),
    ),
}


def open_runner(
    path: str | Path,
    *,
    backend: str | None = None,
    threads: int | None = None,
    way: str | None = None,
    unproven: bool = False,
) -> Runner:
    """Open an artifact (or, with `pytorch`, a checkpoint); without `backend`, by the file's suffix.

    `threads` is for CPU arithmetic; None leaves the library its default, all cores. `way` is one of the backend's
    `ways`. `unproven` opens an engine that no device has run yet, for its proof.

    Errors: UsageError for an unknown backend or way, or a file it does not take;
    ArtifactError for a file that is none; ProofError for an unproven engine; BackendUnavailable.
    """
    path = Path(path)
    name = backend or backend_for(path)
    require_choice("backend", name, BACKENDS)
    info = BACKENDS[name]
    if path.suffix != info.suffix:
        fitting = [other for other, its in BACKENDS.items() if its.suffix == path.suffix]
        hint = f"valid for it: {', '.join(fitting)}" if fitting else None
        raise UsageError(f"{name} opens {info.suffix} files, not {path.name}", hint=hint)
    if path.suffix == ".engine" and not unproven:
        from tinyres.runtime.passport import require_proven

        require_proven(path)
    try:
        module = importlib.import_module(info.module)
    except ImportError as exc:
        raise missing_extra(name, info.package, info.extra) from exc
    chosen = {}
    if way is not None:
        if not info.ways:
            raise UsageError(f"there is no way of {name} to choose: it has one, and not {way!r}", hint="leave way out")
        require_choice(f"way of {name}", way, info.ways)
        chosen["way"] = way
    opened: Backend = module.open_backend(path, threads=threads, **chosen)
    return Runner(opened)


def backend_for(path: Path) -> str:
    """The default backend for a file, of those that are installed; of an engine the library that built it.

    Errors: UsageError, ArtifactError.
    """
    if path.suffix == ".engine":
        from tinyres.runtime.passport import read_passport

        return read_passport(path).library
    if path.suffix == ".onnx" and stored_precision(path) == "bf16":
        return "openvino"
    fitting = [name for name, info in BACKENDS.items() if path.suffix == info.suffix]
    if fitting:
        usual = fitting[0]
        # Whoever installed OpenVINO alone means it; with neither, the error names the usual one.
        return (
            "openvino"
            if "openvino" in fitting and why_unavailable(usual) and not why_unavailable("openvino")
            else usual
        )
    kinds = sorted({info.suffix for info in BACKENDS.values()})
    raise UsageError(f"no backend opens {path.name}", hint="valid: files ending in " + ", ".join(kinds))


def why_unavailable(name: str) -> TinyresError | None:
    """None if the backend's library is installed here, else the error that says what is missing. Imports nothing."""
    info = BACKENDS[name]
    if importlib.util.find_spec(info.package) is None:
        return missing_extra(name, info.package, info.extra)
    if info.distribution:
        try:
            metadata.version(info.distribution)
        except metadata.PackageNotFoundError:
            return BackendUnavailable(
                f"{name} needs {info.distribution} in place of what brings {info.package} here",
                hint=f"pip uninstall -y {info.package}, then pip install 'tinyres[{info.extra}]'",
            )
    return None
