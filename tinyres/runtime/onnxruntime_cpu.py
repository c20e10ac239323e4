"""ONNX Runtime on the CPU. It computes what is stored as fp16 in fp32, and this says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from tinyres.errors import ArtifactError, BackendUnavailable
from tinyres.runtime.metadata import read_metadata
from tinyres.runtime.runner import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.spec import ModelSpec

PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeCpu:
    """An inference session on the CPU provider. Its calls may come from several threads."""

    name = "onnxruntime-cpu"
    device = "cpu"

    def __init__(self, session: Any, spec: ModelSpec, precision: Precision) -> None:
        self._session = session
        self.spec = spec
        self.precision = precision

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the graph for its logits alone."""
        try:
            logits: NDArray[np.float32] = self._session.run(["logits"], {"image": images})[0]
        except Exception as exc:
            raise BackendUnavailable(f"ONNX Runtime failed: {_first_line(exc)}") from exc
        return logits

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def open_backend(path: Path, *, threads: int | None) -> OnnxRuntimeCpu:
    """Load an ONNX artifact. Errors: ArtifactError, BackendUnavailable."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings concern graph rewriting, and go to stderr past our log
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # Bytes, not the path: an artifact is one file, and external data must not be looked for beside it.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=[PROVIDER])
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except Exception as exc:
        raise ArtifactError(f"{path} is not an ONNX model that ONNX Runtime loads: {_first_line(exc)}") from exc
    if session.get_providers() != [PROVIDER]:
        raise BackendUnavailable(f"asked for {PROVIDER}, got {session.get_providers()}")
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map, place=str(path))
    if metadata.input != "image":
        raise ArtifactError(f"{path} takes float tensors, not pictures", hint="export it with --input image")
    compute = "fp32" if metadata.precision in ("fp16", "fp32") else metadata.precision
    return OnnxRuntimeCpu(session, metadata.spec, Precision(storage=metadata.precision, compute=compute))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
