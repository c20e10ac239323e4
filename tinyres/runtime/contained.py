"""What the graph of an artifact may hold, checked before a backend sees it: it can classify, and no more.

ONNX can name other files for its weights, run loops or in circles, and ask for memory by a number. None of ours does.
"""

from __future__ import annotations

import math
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

BYTES_OF = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 10: 2, 16: 2}
"""The size of a number by its type in onnx.proto: float32, uint8, int8, int32, int64, float16, bfloat16."""

# The numbers of fields in onnx.proto.
MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_SPARSE = 1, 5, 11, 15
NODE_INPUT, NODE_OUTPUT, NODE_OPERATION, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_INTEGERS = {3, 8}
ATTRIBUTE_TENSORS_AND_GRAPHS = {5, 6, 10, 11, 22, 23}
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW, TENSOR_EXTERNAL = 1, 2, 8, 9, 13
VALUE_NAME = 1


def require_contained(content: bytes, *, place: str) -> None:
    """Errors: ArtifactError that says `place` for an ONNX file that holds what no artifact does, or for none."""
    try:
        found = _foreign(memoryview(content))
    except (IndexError, ValueError) as exc:
        raise ArtifactError(f"{place} is not an ONNX model: {exc}", hint="tinyres export makes artifacts") from exc
    if found:
        raise ArtifactError(f"{place} holds what no artifact does: {found}", hint="tinyres export makes artifacts")


def _foreign(model: Message) -> str:
    """The first thing that does not belong there; empty if there is none."""
    parts = list(fields(model, {MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS}))
    if [number for number, _ in parts] != [MODEL_GRAPH]:
        return "functions, training, or not one graph"
    graph = parts[0][1]
    return _foreign_weight(graph) or _foreign_operation(graph)


def _foreign_weight(graph: Message) -> str:
    for number, tensor in fields(graph, {GRAPH_INITIALIZER, GRAPH_SPARSE}):
        if number == GRAPH_SPARSE or any(fields(tensor, {TENSOR_EXTERNAL})):
            return "a weight that lies outside the file, or a sparse one"
        if not _fills_its_shape(tensor):
            return "a weight whose shape is not that of its numbers"
    return ""


def _foreign_operation(graph: Message) -> str:
    weights = {name for _, tensor in fields(graph, {GRAPH_INITIALIZER}) for name in _texts(tensor, TENSOR_NAME)}
    known = weights | {name for _, value in fields(graph, {GRAPH_INPUT}) for name in _texts(value, VALUE_NAME)}
    for _, node in fields(graph, {GRAPH_NODE}):
        if found := _foreign_in_node(node):
            return found
        inputs, outputs = set(_texts(node, NODE_INPUT)), set(_texts(node, NODE_OUTPUT))
        if not inputs <= known or outputs & known:  # a circle has OpenVINO take memory without end
            return "an operation that is not in the order of its inputs"
        known |= outputs
    return ""


def _fills_its_shape(tensor: Message) -> bool:
    dims, kinds = list(numbers(tensor, {TENSOR_DIMS})), list(numbers(tensor, {TENSOR_TYPE}))
    raw = [len(content) for _, content in fields(tensor, {TENSOR_RAW})]
    sizes = [BYTES_OF.get(kind, -1) for kind in kinds]
    return min(dims, default=0) >= 0 and raw == [math.prod(dims) * size for size in sizes]


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


def _texts(message: Message, number: int) -> list[bytes]:
    return [bytes(text) for _, text in fields(message, {number})]
