"""ONNX Runtime's TensorRT provider. Its engines are cached by all that they depend on: no old weights in a new file."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING

import onnxruntime

from tinyres.errors import BackendUnavailable
from tinyres.files import cache_root, storage_errors
from tinyres.runtime import tensorrt_library
from tinyres.runtime.cuda import find_device
from tinyres.runtime.metadata import read_artifact
from tinyres.runtime.onnxruntime_cuda import open_gpu, require_provider

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.runtime.cuda import Device
    from tinyres.runtime.onnxruntime_cuda import OnnxRuntimeGpu

PROVIDER = "TensorrtExecutionProvider"
BATCHES = (1, 32, 256)
NO_TF32 = "NVIDIA_TF32_OVERRIDE"


def open_backend(path: Path, *, threads: int | None) -> OnnxRuntimeGpu:
    """Load an ONNX artifact. Errors: ArtifactError; BackendUnavailable without the provider or for a CPU fallback."""
    del threads  # of the CPU
    require_provider(PROVIDER)
    _switch_off_tf32()
    settings = provider_settings(path, find_device(), _tensorrt_version())
    return open_gpu(path, "onnxruntime-tensorrt", PROVIDER, settings, most=BATCHES[2])


def _switch_off_tf32() -> None:
    """By the one switch there is, which CUDA reads when it starts. Errors: BackendUnavailable if it has started."""
    torch = sys.modules.get("torch")
    if os.environ.get(NO_TF32) != "0" and torch is not None and torch.cuda.is_initialized():
        raise BackendUnavailable(
            "TF32 cannot be switched off any more: PyTorch has started CUDA in this process",
            hint=f"{NO_TF32}=0 before the program starts",
        )
    os.environ[NO_TF32] = "0"


def _tensorrt_version() -> str:
    """Of the library that the provider will use, where Python knows it; to load it is also how it is found."""
    try:
        return tensorrt_library.load("tensorrt").version
    except BackendUnavailable:
        return "unknown"


def provider_settings(path: Path, device: Device, tensorrt: str) -> dict[str, str]:
    """What the provider is told: the profile, no reduced precision of its own, and a cache for this very engine.

    Errors: ArtifactError, StorageError.
    """
    content, metadata = read_artifact(path)
    shapes = ["image:" + "x".join(map(str, (batch, *metadata.spec.input_shape))) for batch in BATCHES]
    depends = (
        content,
        onnxruntime.__version__,
        tensorrt,
        device.name,
        device.compute_capability,
        device.driver,
        "|".join(shapes),
    )
    digest = hashlib.sha256()
    for part in depends:
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"|")
    folder = cache_root() / "engines" / digest.hexdigest()[:32]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": "0",
        "trt_profile_min_shapes": shapes[0],
        "trt_profile_opt_shapes": shapes[1],
        "trt_profile_max_shapes": shapes[2],
        "trt_fp16_enable": "0",
        "trt_int8_enable": "1" if metadata.precision == "int8" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
