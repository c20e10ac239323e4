"""What the graph of an artifact may hold, checked before a backend sees it: it can classify, and no more.

ONNX can name other files for its weights, run loops or in circles, and ask for memory by a number or by broadcasting.
So the shape of every value is worked out for one picture, and none may be larger than the network of the file's spec
has; and the weights of that network must be there (docs/decisions/0021-what-a-graph-may-hold.md).
"""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

from tinyres.errors import ArtifactError
from tinyres.runtime.protobuf import fields, numbers

if TYPE_CHECKING:
    from tinyres.runtime.protobuf import Message
    from tinyres.spec import ModelSpec

    Shape = tuple[int, ...]

OPERATIONS = frozenset(
    {"Add", "Cast", "Conv", "Div", "Flatten", "Gemm", "GlobalAveragePool", "Relu", "Softmax", "Sub", "Transpose"}
)
"""All that a graph of ours may hold: no Dropout, no BatchNormalization, no arithmetic on shapes."""
QUANTIZATION = frozenset({"QuantizeLinear", "DequantizeLinear", "LeakyRelu"})
"""And int8 beside them."""
ATTRIBUTES = frozenset({"alpha", "axis", "kernel_shape", "pads", "perm", "strides", "to", "transB"})
LARGEST_SETTING = 16
"""Strides, paddings, kernels, axes and types of ours are smaller; a padding of thousands asks for gigabytes."""
NODES_A_BLOCK = 40
"""Ours has 7 with its skip, in int8 twice as many; what is before and after counts as two blocks."""
BYTES_OF = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 10: 2, 16: 2}
"""The size of a number by its type in onnx.proto: float32, uint8, int8, int32, int64, float16, bfloat16."""

# The numbers of fields in onnx.proto.
MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 20, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_SPARSE = 1, 5, 11, 15
NODE_INPUT, NODE_OUTPUT, NODE_OPERATION, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME = 1
ATTRIBUTE_INTEGERS = {3, 8}
ATTRIBUTE_TENSORS_AND_GRAPHS = {5, 6, 10, 11, 22, 23}
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW, TENSOR_EXTERNAL = 1, 2, 8, 9, 13
VALUE_NAME = 1


class _ForeignError(Exception):
    """What does not belong in an artifact."""


def require_contained(content: bytes, spec: ModelSpec, *, place: str) -> None:
    """Errors: ArtifactError that says `place` for an ONNX file that is not a network of `spec`, or none at all."""
    try:
        _check_model(memoryview(content), spec)
    except (IndexError, ValueError) as exc:
        raise ArtifactError(f"{place} is not an ONNX model: {exc}", hint="tinyres export makes artifacts") from exc
    except _ForeignError as exc:
        raise ArtifactError(
            f"{place} holds what no artifact does: {exc}", hint="tinyres export makes artifacts"
        ) from exc


def _check_model(model: Message, spec: ModelSpec) -> None:
    parts = list(fields(model, {MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS}))
    if [number for number, _ in parts] != [MODEL_GRAPH]:
        raise _ForeignError("functions, training, or not one graph")
    graph = parts[0][1]
    weights = _weights(graph)
    if sum(map(math.prod, weights.values())) < _fewest_weights(spec):
        raise _ForeignError("fewer weights than its network has")
    if [_texts(value, VALUE_NAME) for _, value in fields(graph, {GRAPH_INPUT})] != [[b"image"]]:
        raise _ForeignError("another input than image")
    _check_nodes(graph, spec, weights)


def _weights(graph: Message) -> dict[bytes, Shape]:
    found: dict[bytes, Shape] = {}
    for number, tensor in fields(graph, {GRAPH_INITIALIZER, GRAPH_SPARSE}):
        if number == GRAPH_SPARSE or any(fields(tensor, {TENSOR_EXTERNAL})):
            raise _ForeignError("a weight that lies outside the file, or a sparse one")
        dims, kinds = tuple(numbers(tensor, {TENSOR_DIMS})), list(numbers(tensor, {TENSOR_TYPE}))
        raw = [len(content) for _, content in fields(tensor, {TENSOR_RAW})]
        if (
            len(dims) > 4
            or min(dims, default=1) < 1
            or raw != [math.prod(dims) * BYTES_OF.get(kind, 0) for kind in kinds]
        ):
            raise _ForeignError("a weight whose shape is not that of its numbers")
        found.update(dict.fromkeys(_texts(tensor, TENSOR_NAME), dims))
    return found


def _fewest_weights(spec: ModelSpec) -> int:
    """Those of the convolutions of 3x3 and of the classifier."""
    inputs = [3, *spec.widths]
    entries = sum(9 * before * width for before, width in zip(inputs, spec.widths, strict=False))
    within = sum(9 * width * width * (2 * blocks - 1) for width, blocks in zip(spec.widths, spec.blocks, strict=True))
    return entries + within + spec.widths[-1] * spec.classes


def _check_nodes(graph: Message, spec: ModelSpec, weights: dict[bytes, Shape]) -> None:
    size = spec.preprocess.image_size
    most = max(3, *spec.widths, spec.classes) * size * size
    shapes = {**weights, b"image": (1, size, size, 3)}
    fixed = set(weights)
    for count, (_, node) in enumerate(fields(graph, {GRAPH_NODE}), start=1):
        operation, settings = _operation(node), _settings(node)
        inputs, outputs = _texts(node, NODE_INPUT), _texts(node, NODE_OUTPUT)
        if not set(inputs) <= shapes.keys() or len(outputs) != 1 or outputs[0] in shapes:
            raise _ForeignError("an operation that is not in the order of its inputs")  # OpenVINO runs in a circle
        constant = set(inputs) <= fixed
        if constant and operation != "DequantizeLinear":
            raise _ForeignError("an operation on weights alone")
        shape = _shape_of(operation, [shapes[name] for name in inputs], settings)
        if not constant and math.prod(shape) > most:
            raise _ForeignError(f"a layer of {math.prod(shape):,} numbers a picture, in a network of up to {most:,}")
        if count > NODES_A_BLOCK * (sum(spec.blocks) + 2):
            raise _ForeignError(f"more than {count - 1:,} operations")
        shapes[outputs[0]] = shape
        fixed |= set(outputs) if constant else set()


def _operation(node: Message) -> str:
    for _, domain in fields(node, {NODE_DOMAIN}):
        if bytes(domain) not in (b"", b"ai.onnx"):
            raise _ForeignError(f"the domain {bytes(domain).decode(errors='replace')!r}")
    names = [bytes(name).decode(errors="replace") for _, name in fields(node, {NODE_OPERATION})]
    if len(names) != 1 or names[0] not in OPERATIONS | QUANTIZATION:
        raise _ForeignError(f"the operation {', '.join(names)!r}")
    return names[0]


def _settings(node: Message) -> dict[str, list[int]]:
    """The integers of each attribute."""
    found: dict[str, list[int]] = {}
    for _, attribute in fields(node, {NODE_ATTRIBUTE}):
        if any(fields(attribute, ATTRIBUTE_TENSORS_AND_GRAPHS)):
            raise _ForeignError("a graph or a tensor within an operation")
        names = [name.decode(errors="replace") for name in _texts(attribute, ATTRIBUTE_NAME)]
        values = list(numbers(attribute, ATTRIBUTE_INTEGERS))
        largest = max(map(abs, values), default=0)
        if len(names) != 1 or names[0] not in ATTRIBUTES or names[0] in found or largest > LARGEST_SETTING:
            raise _ForeignError(f"the setting {', '.join(names)!r} of {largest}")
        found[names[0]] = values
    return found


def _shape_of(operation: str, inputs: list[Shape], settings: dict[str, list[int]]) -> Shape:
    """Of an operation's value, for one picture. Errors: _ForeignError for inputs that it cannot take."""
    first, *others = inputs or [()]
    second = others[0] if others else ()
    shape: Shape = ()
    if operation in ("Add", "Sub", "Div"):
        pairs = list(zip_longest(reversed(first), reversed(second), fillvalue=1))
        if all(one == other or 1 in (one, other) for one, other in pairs):
            shape = tuple(max(pair) for pair in reversed(pairs))
    elif operation == "Transpose":
        order = settings.get("perm", [])
        if sorted(order) == list(range(len(first))):
            shape = tuple(first[axis] for axis in order)
    elif operation == "Conv":
        pads, strides = settings.get("pads", [0] * 4), settings.get("strides", [1] * 2)
        if len(first) == len(second) == len(pads) == 4 and len(strides) == 2 and min(strides) > 0:
            padded = (first[2] + pads[0] + pads[2], first[3] + pads[1] + pads[3])
            sides = zip(padded, second[2:], strides, strict=True)
            shape = (1, second[0], *((side - kernel) // stride + 1 for side, kernel, stride in sides))
    elif operation == "Gemm":
        shape = (1, max(second)) if len(second) == 2 else ()
    elif operation == "GlobalAveragePool":
        shape = (*first[:2], 1, 1)
    elif operation == "Flatten":
        shape = (1, math.prod(first))
    else:
        shape = first
    if min(shape, default=0) < 1:
        raise _ForeignError(f"the operation {operation!r} on shapes that it does not take")
    return shape


def _texts(message: Message, number: int) -> list[bytes]:
    return [bytes(text) for _, text in fields(message, {number})]
