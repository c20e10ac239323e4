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

    from tinyres.runtime.metadata import ArtifactMetadata
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
            raise BackendUnavailable(f"ONNX Runtime failed: {first_line(exc)}") from exc
        return logits

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def open_backend(path: Path, *, threads: int | None) -> OnnxRuntimeCpu:
    """Load an ONNX artifact. Errors: ArtifactError, BackendUnavailable."""
    options = quiet_options()
    if threads is not None:
        options.intra_op_num_threads = threads
    session, metadata = open_session(path, [PROVIDER], options)
    compute = "fp32" if metadata.precision in ("fp16", "fp32") else metadata.precision
    return OnnxRuntimeCpu(session, metadata.spec, Precision(storage=metadata.precision, compute=compute))


def quiet_options() -> Any:
    """Session options without the library's warnings, which concern graph rewriting and go to stderr past our log."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def open_session(path: Path, providers: list[Any], options: Any) -> tuple[Any, ArtifactMetadata]:
    """A session on the first of `providers`, and what its file says of itself.

    Errors: ArtifactError for a file that is none of ours; BackendUnavailable if the session took another provider.
    """
    wanted = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    try:
        # Bytes, not the path: an artifact is one file, and external data must not be looked for beside it.
        # And no fallback: else the library starts again on the CPU, even within a run, with a line on stdout.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers, enable_fallback=0)
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except Exception as exc:
        raise ArtifactError(f"{path} is not an ONNX model that ONNX Runtime loads: {first_line(exc)}") from exc
    taken = session.get_providers()
    if taken[0] != wanted[0]:
        raise BackendUnavailable(f"asked for {wanted[0]}, got {', '.join(taken)}")
    metadata = read_metadata(session.get_modelmeta().custom_metadata_map, place=str(path))
    if metadata.input != "image":
        raise ArtifactError(f"{path} takes float tensors, not pictures", hint="export it with --input image")
    return session, metadata


def first_line(error: Exception) -> str:
    """Of an error of the library's."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
