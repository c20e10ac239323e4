"""OpenVINO on the CPU. It picks its arithmetic by itself unless told, so it is told, and asked what it took."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from tinyres.errors import ArtifactError, BackendUnavailable
from tinyres.runtime.metadata import read_artifact
from tinyres.runtime.runner import Number, Precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.spec import ModelSpec

HINTS = {"fp16": openvino.Type.f16, "bf16": openvino.Type.bf16}
"""What the library is told to compute in; for all others float32, beside which int8 is in the file itself."""
NUMBERS: dict[str, Number] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
HEAVY = ("Convolution", "FullyConnected", "MatMul")


class OpenVino:
    """A compiled model. Each thread that calls gets a request of its own."""

    name = "openvino"
    device = "cpu"

    def __init__(self, compiled: Any, spec: ModelSpec, precision: Precision, evidence: str) -> None:
        self._compiled = compiled
        self.evidence = evidence
        self.spec = spec
        self.precision = precision
        self._requests = threading.local()

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the graph on the pictures where they lie; the answer is copied out of the request's own memory."""
        request = getattr(self._requests, "request", None)
        try:
            if request is None:
                request = self._requests.request = self._compiled.create_infer_request()
            logits: NDArray[np.float32] = np.array(request.infer({"image": images}, share_inputs=True)["logits"])
        except RuntimeError as exc:
            raise BackendUnavailable(f"OpenVINO failed: {_first_line(exc)}") from exc
        return logits

    def close(self) -> None:
        """Drop the model."""
        self._requests = threading.local()
        self._compiled = None


def open_backend(path: Path, *, threads: int | None) -> OpenVino:
    """Load an ONNX artifact. Errors: ArtifactError; BackendUnavailable if float32 would be computed in less."""
    content, metadata = read_artifact(path)
    core = openvino.Core()
    try:
        # Bytes, not the path: an artifact is one file, and external data must not be looked for beside it.
        model = core.read_model(content, b"")
    except (RuntimeError, UnicodeDecodeError) as exc:  # its words about a damaged file may hold the file's bytes
        raise ArtifactError(f"{path} is not an ONNX model that OpenVINO loads: {_first_line(exc)}") from exc
    wanted = HINTS.get(metadata.precision, openvino.Type.f32)
    config = {hint.inference_precision: wanted, hint.performance_mode: hint.PerformanceMode.LATENCY}
    if threads is not None:
        config[properties.inference_num_threads] = threads
    try:
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as exc:
        raise BackendUnavailable(f"OpenVINO does not compile {path.name}: {_first_line(exc)}") from exc
    heavy = computed_in(compiled)
    compute = NUMBERS[heavy.most_common(1)[0][0]]
    if metadata.precision == "fp32" and (others := sorted({NUMBERS[kind] for kind in heavy} - {"fp32"})):
        raise BackendUnavailable(f"OpenVINO would compute {path.name} in {', '.join(others)}, not fp32")
    devices = ", ".join(compiled.get_property(properties.execution_devices))
    evidence = f"{devices}: " + ", ".join(f"{count} heavy operations in {kind}" for kind, count in heavy.most_common())
    return OpenVino(compiled, metadata.spec, Precision(storage=metadata.precision, compute=compute), evidence)


def computed_in(compiled: Any) -> Counter[str]:
    """The arithmetic of the heavy operations, as the compiled model says. Errors: BackendUnavailable for others."""
    found = Counter(
        operation.get_rt_info()["runtimePrecision"].astype(str)
        for operation in compiled.get_runtime_model().get_ops()
        if operation.get_rt_info()["layerType"].astype(str) in HEAVY
    )
    unknown = [shown for shown in found if shown not in NUMBERS] if found else ["nothing"]
    if unknown:
        raise BackendUnavailable(f"OpenVINO says that it computes in {', '.join(unknown)}")
    return found


def _first_line(error: Exception) -> str:
    """Of an error of the library's that says something: its first lines are places in its own source."""
    lines = [
        line for line in str(error).strip().splitlines() if line and not line.startswith(("Exception from", "Check"))
    ]
    return (lines[-1] if lines else type(error).__name__)[:200]
