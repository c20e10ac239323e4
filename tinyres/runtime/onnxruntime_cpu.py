"""ONNX Runtime on the CPU. It computes what is stored as fp16 in fp32, and this says so."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from tinyres.errors import ArtifactError, BackendUnavailable
from tinyres.runtime.metadata import read_artifact
from tinyres.runtime.runner import Number, Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.runtime.metadata import ArtifactMetadata
    from tinyres.spec import ModelSpec

PROVIDER = "CPUExecutionProvider"
INT8_LAYERS = ("QLinearConv", "QGemm")
"""What it calls layers that it computes in int8."""


class OnnxRuntimeCpu:
    """An inference session on the CPU provider. Its calls may come from several threads."""

    name = "onnxruntime-cpu"
    device = "cpu"

    def __init__(self, session: Any, spec: ModelSpec, precision: Precision) -> None:
        self._session = session
        self.evidence = ", ".join(session.get_providers())
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
    """Load an ONNX artifact. Errors: ArtifactError; BackendUnavailable for bf16, which it does not compute."""
    content, metadata = read_artifact(path)
    return open_content(content, metadata, str(path), threads=threads)


def open_content(
    content: bytes, metadata: ArtifactMetadata, place: str, *, threads: int | None = None
) -> OnnxRuntimeCpu:
    """As `open_backend` for the bytes of a file, called `place` in errors."""
    if metadata.precision == "bf16":
        raise BackendUnavailable(
            "ONNX Runtime's CPU provider has no bf16 arithmetic", hint="OpenVINO has: pip install 'tinyres[openvino]'"
        )
    options = quiet_options()
    if threads is not None:
        options.intra_op_num_threads = threads
    compute: Number = "fp32"
    if metadata.target == "cpu":
        compute = "int8"
    elif metadata.precision == "int8":
        # It has no kernels for layouts of GPUs, and rewriting the graph in search of some only changes the rounding.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = open_session(content, place, [PROVIDER], options)
    return OnnxRuntimeCpu(session, metadata.spec, Precision(storage=metadata.precision, compute=compute))


def count_int8(content: bytes) -> int:
    """How many layers of an int8 file ONNX Runtime computes in int8 here, by the graph that it makes of it."""
    import onnx

    options = quiet_options()
    with tempfile.TemporaryDirectory(prefix="tinyres-graph-") as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        open_session(content, "the file", [PROVIDER], options)
        return sum(node.op_type in INT8_LAYERS for node in onnx.load(path).graph.node)


def quiet_options() -> Any:
    """Session options without the library's messages, which go to stderr past our log.

    Warnings concern graph rewriting. Errors are raised with the same text; written, they hold a graph's names as they
    are, and a terminal would act on them.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def open_session(content: bytes, path: Path | str, providers: list[Any], options: Any) -> Any:
    """A session on the first of `providers` for the file `path`, whose bytes are `content`.

    Errors: ArtifactError for a file that the library does not load; BackendUnavailable if it took another provider.
    """
    wanted = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    try:
        # Bytes, not the path: an artifact is one file, and external data must not be looked for beside it.
        # And no fallback: else the library starts again on the CPU, even within a run, with a line on stdout.
        session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
    except Exception as exc:
        raise ArtifactError(f"{path} is not an ONNX model that ONNX Runtime loads: {first_line(exc)}") from exc
    taken = session.get_providers()
    if taken[0] != wanted[0]:
        raise BackendUnavailable(f"asked for {wanted[0]}, got {', '.join(taken)}")
    return session


def first_line(error: Exception) -> str:
    """Of an error of the library's."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
