"""What the graph of an artifact may hold, checked before a backend sees it: it can classify, and no more.

ONNX can name other files for its weights, run loops, and ask for memory by a number. None of ours does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyres.errors import ArtifactError
from tinyres.runtime.protobuf import fields, numbers

if TYPE_CHECKING:
    from tinyres.runtime.protobuf import Message

OPERATIONS = frozenset(
    {"Add", "Cast", "Conv", "Div", "Flatten", "Gemm", "GlobalAveragePool", "Relu", "Softmax", "Sub", "Transpose"}
)
"""All that a graph of ours may hold: no Dropout, no BatchNormalization, no arithmetic on shapes."""
QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear", "LeakyRelu"})
"""And int8 beside them."""
LARGEST_SETTING = 16
"""Strides, paddings, kernels, axes and types of ours are smaller; a padding of thousands asks for gigabytes."""

# The numbers of fields in onnx.proto.
MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OPERATION, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_INTEGERS = {3, 8}
ATTRIBUTE_TENSORS_AND_GRAPHS = {5, 6, 10, 11, 22, 23}
TENSOR_EXTERNAL = 13


def require_contained(content: bytes, *, place: str) -> None:
    """Errors: ArtifactError that says `place` for an ONNX file that holds what no artifact does, or for none."""
    try:
        found = _foreign(memoryview(content))
    except (IndexError, ValueError) as exc:
        raise ArtifactError(f"{place} is not an ONNX model: {exc}") from exc
    if found:
        raise ArtifactError(f"{place} holds what no artifact does: {found}", hint="tinyres export makes artifacts")


def _foreign(model: Message) -> str:
    """The first thing that does not belong there; empty if there is none."""
    for number, part in fields(model, {MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS}):
        if number != MODEL_GRAPH:
            return "a function or a training graph"
        for kind, item in fields(part, {GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE}):
            if kind == GRAPH_NODE:
                if found := _foreign_in_node(item):
                    return found
            elif kind == GRAPH_SPARSE or any(fields(item, {TENSOR_EXTERNAL})):
                return "a weight that lies outside the file, or a sparse one"
    return ""


def _foreign_in_node(node: Message) -> str:
    for number, item in fields(node, {NODE_OPERATION, NODE_DOMAIN, NODE_ATTRIBUTE}):
        if number == NODE_ATTRIBUTE:
            if any(fields(item, ATTRIBUTE_TENSORS_AND_GRAPHS)):
                return "a graph or a tensor within an operation"
            largest = max(map(abs, numbers(item, ATTRIBUTE_INTEGERS)), default=0)
            if largest > LARGEST_SETTING:
                return f"an operation's setting of {largest}"
            continue
        name = bytes(item).decode(errors="replace")
        if name not in ({"", "ai.onnx"} if number == NODE_DOMAIN else OPERATIONS | QUANTIZATION):
            return f"the {'domain' if number == NODE_DOMAIN else 'operation'} {name!r}"
    return ""
