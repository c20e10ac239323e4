"""The precisions that a file's numbers may have, and what is known of each. Adding one begins with a row here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres.export.limits import BF16, FP16, FP32, INT8, Limits

if TYPE_CHECKING:
    from tinyres.runtime.metadata import Stored


@dataclass(frozen=True, slots=True)
class StoredAs:
    """One precision."""

    limits: Limits
    """How far a file may be from its checkpoint."""
    proven_on: str
    """The backend of a CPU that opens it; on others `verify` proves it again."""
    unit: float
    """What rounding adds in a layer, about, as a share of the part of its values that depends on the picture."""
    opset: int = 18
    ir_version: int = 8
    """The oldest that hold the graph, so that the more runtimes load it: no convolution takes bfloat16 before 22."""


PRECISIONS: dict[Stored, StoredAs] = {
    "fp32": StoredAs(FP32, proven_on="onnxruntime-cpu", unit=2**-23),
    "fp16": StoredAs(FP16, proven_on="onnxruntime-cpu", unit=2**-11),
    "bf16": StoredAs(BF16, proven_on="openvino", unit=2**-8, opset=22, ir_version=10),
    "int8": StoredAs(INT8, proven_on="onnxruntime-cpu", unit=2**-6),
}
