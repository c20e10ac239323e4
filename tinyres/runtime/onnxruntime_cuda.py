"""ONNX Runtime on an NVIDIA GPU, by its CUDA provider: no TF32, and nothing left over for the CPU."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from tinyres.errors import ArtifactError, BackendUnavailable
from tinyres.runtime.metadata import read_artifact
from tinyres.runtime.onnxruntime_cpu import first_line, open_session, quiet_options
from tinyres.runtime.runner import Number, Precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.spec import ModelSpec

PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeGpu:
    """A session on a GPU. Pictures and logits are bound, so that the library copies each once."""

    device = "cuda:0"
    _memory = "cuda"

    def __init__(self, name: str, session: Any, spec: ModelSpec, precision: Precision, *, most: int) -> None:
        self.name = name
        self._most = most
        self.spec = spec
        self.precision = precision
        self._session = session
        self.evidence = ", ".join(session.get_providers())

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy in, run for the logits alone, copy out; more pictures than the session takes go in parts."""
        parts = [self._part(images[at : at + self._most]) for at in range(0, len(images), self._most)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _part(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            binding = self._session.io_binding()
            binding.bind_cpu_input("image", images)
            binding.bind_output("logits", "cpu")
            self._session.run_with_iobinding(binding)
            logits: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        except Exception as exc:
            raise BackendUnavailable(f"ONNX Runtime failed: {first_line(exc)}") from exc
        return logits

    def device_times(self, images: NDArray[np.uint8], runs: int) -> dict[str, list[int]]:
        """Nanoseconds of the network alone, pictures and logits staying on the device, by the host's clock.

        The library waits for the device at the end of each run; its own launches are in it. Empty for more pictures
        than it takes at once.
        """
        if len(images) > self._most:
            return {}
        pixels = onnxruntime.OrtValue.ortvalue_from_numpy(images, self._memory, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", pixels)
        binding.bind_output("logits", self._memory)
        took = []
        for _ in range(runs):
            before = time.perf_counter_ns()
            self._session.run_with_iobinding(binding)
            took.append(time.perf_counter_ns() - before)
        return {"network, host clock": took}

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def open_backend(path: Path, *, threads: int | None) -> OnnxRuntimeGpu:
    """Load an ONNX artifact. Errors: ArtifactError; BackendUnavailable without the provider or for a CPU fallback."""
    del threads  # of the CPU
    return open_gpu(path, "onnxruntime-cuda", PROVIDER, {"device_id": "0", "use_tf32": "0"}, most=1 << 30)


def open_gpu(path: Path, name: str, provider: str, settings: dict[str, str], *, most: int) -> OnnxRuntimeGpu:
    """Load an ONNX artifact on one provider, for batches up to `most`.

    Errors: ArtifactError; BackendUnavailable without the provider, or where it leaves a node to another.
    """
    require_provider(provider)
    content, metadata = read_artifact(path)
    options = quiet_options()
    # A session that leaves nodes to the CPU would still answer, and be slow; it fails to open instead.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses; our answers go to stdout
            onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip put them
    try:
        session = open_session(content, path, [(provider, settings)], options)
    except ArtifactError as exc:
        open_session(
            content, path, ["CPUExecutionProvider"], quiet_options()
        )  # raises if it is the file that does not load
        raise BackendUnavailable(
            f"{provider} does not run all of {path.name} here: {exc}",
            hint="it needs the CUDA, cuDNN and for TensorRT also TensorRT libraries that this version was built with",
        ) from exc
    compute: Number = metadata.precision
    if compute == "int8" and provider == PROVIDER:
        compute = "fp32"  # it rounds between layers, and has no int8 kernels for them
    precision = Precision(metadata.precision, compute)
    return OnnxRuntimeGpu(name, session, metadata.spec, precision, most=most)


def require_provider(wanted: str) -> None:
    """Errors: BackendUnavailable with the way out if this ONNX Runtime was built without a provider."""
    here = onnxruntime.get_available_providers()
    if wanted not in here:
        raise BackendUnavailable(
            f"this ONNX Runtime has no {wanted}, only {', '.join(here)}",
            hint="pip uninstall -y onnxruntime, then pip install 'tinyres[gpu]'",
        )
