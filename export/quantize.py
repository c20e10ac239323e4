"""A float32 graph of ours with quantisation written around its layers (QDQ).

Every backend reads the same notation: a tensor that is rounded to eight bits passes a QuantizeLinear and a
DequantizeLinear, and what lies between two such pairs may be computed in int8. Weights are stored as int8, with a scale
for each output channel. Where the pairs have to stand is a matter of what a backend can fuse, so it differs by target:

- `cpu` (ONNX Runtime, OpenVINO): unsigned activations, biases in int32, both sides of a residual sum.
- `cuda`, `tensorrt`: signed activations around zero, biases in float32, and of a residual sum the skip alone, since the
  convolution before the sum takes it into its own kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from tinyres.runtime.metadata import Target

LAYERS = ("Conv", "Gemm")
"""The operations with weights: each is computed in int8, or kept in float32."""
LARGEST_BIAS = 2**30
"""A bias is stored in steps of its layer's scales, which are made larger where int32 could not hold it."""


SMALLEST_STEP = float(np.finfo(np.float32).tiny)
"""What rounds to nothing has any step: its values are 0."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a tensor's values are rounded within; values outside are clipped."""

    low: float
    high: float


def grid(within: Range, *, symmetric: bool) -> tuple[float, int, int, int]:
    """The step between two of the 256 values of a range, which of them is 0, and the least and the largest.

    0 is one of them always: convolutions pad with it, and Relu makes it.
    """
    low, high = min(within.low, 0.0), max(within.high, 0.0)
    span = max(-low, high) / 127 if symmetric else (high - low) / 255
    step = float(np.float32(span)) if span >= SMALLEST_STEP else 1.0
    if symmetric:
        return step, 0, -127, 127
    return step, int(np.clip(np.rint(-low / step), 0, 255)), 0, 255


def layers_of(model: onnx.ModelProto) -> list[str]:
    """The names of the layers with weights, in order."""
    return [node.name for node in model.graph.node if node.op_type in LAYERS]


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """The layers of a file whose weights are in int8."""
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in model.graph.node if node.op_type in LAYERS and node.input[1] in restored]


def rounded_tensors(
    model: onnx.ModelProto, *, target: Target, kept: Collection[str] = (), outputs: bool = True
) -> list[str]:
    """The activations that are rounded if the layers `kept` stay in float32, in the order they are computed.

    These are the inputs of the layers in int8, and the sides of the sums that follow one. On a CPU also their
    `outputs`: ONNX Runtime computes no convolution in int8 whose answer it is not told to round.
    """
    relus = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    rounded: set[str] = set()
    for node in model.graph.node:
        if node.op_type in LAYERS and node.name not in kept:
            rounded.add(node.input[0])
            if outputs and target == "cpu" and node.op_type == "Conv":
                rounded.add(relus.get(node.output[0], node.output[0]))
        elif node.op_type == "Add" and node.input[0] not in kept:  # the convolution, then the skip
            sides = node.input if target == "cpu" else node.input[1:]
            rounded.update(side for side in sides if side not in kept)
    return [node.output[0] for node in model.graph.node if node.output[0] in rounded]


def quantize(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    means: Mapping[str, NDArray[np.float64]],
    *,
    target: Target,
    kept: Collection[str] = (),
    reduced: bool = False,
    outputs: bool = True,
) -> onnx.ModelProto:
    """The float32 `model` with all layers but `kept` in int8.

    `ranges` and `means` (C,) by channel are of the tensors in `rounded_tensors`. `reduced` stores weights in seven
    bits, for processors whose 16-bit sums of products overflow. `outputs` as in `rounded_tensors`.
    """
    writer = _Writer(model, target, most=63 if reduced else 127)
    floats = {node.output[0]: node.input[0] for node in model.graph.node if node.name in kept}
    rounded = set(rounded_tensors(model, target=target, kept=kept, outputs=outputs))
    for node in model.graph.node:
        if node.op_type in LAYERS and node.name not in kept:
            writer.layer(node, means[node.input[0]])
        elif target == "cpu" and node.op_type == "Relu" and writer.is_rounded(floats.get(node.input[0], "")):
            writer.keep_float(node)
        else:
            writer.copy(node)
        if node.output[0] in rounded:
            writer.round(node.output[0], ranges[node.output[0]])
    return writer.finished()


class _Writer:
    """Nodes and constants of the new graph, in the order of the old one's."""

    def __init__(self, model: onnx.ModelProto, target: Target, *, most: int) -> None:
        self._model, self._target, self._most = model, target, most
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._scales: dict[str, float] = {}
        """Of the tensors that were rounded; whatever reads one reads its rounded values."""

    def copy(self, node: onnx.NodeProto, *replaced: str) -> None:
        """Add a node of the old graph, with `replaced` in place of its inputs from the second on."""
        added = onnx.NodeProto()
        added.CopyFrom(node)
        inputs = [node.input[0], *(replaced or node.input[1:])]
        added.input[:] = [f"{name}.rounded" if name in self._scales else name for name in inputs]
        self._nodes.append(added)

    def is_rounded(self, name: str) -> bool:
        """Whether what reads the tensor reads its rounded values."""
        return name in self._scales

    def keep_float(self, node: onnx.NodeProto) -> None:
        """Add the Relu of a layer that stays in float32 though what it reads is rounded.

        ONNX Runtime takes a Relu into the rounding after it, then finds the layer between two roundings, and makes int8
        of its weights too. A LeakyRelu without a leak is the same function, and stands in the way.
        """
        self._add("LeakyRelu", [node.input[0]], node.output[0], alpha=0.0)

    def layer(self, node: onnx.NodeProto, means: NDArray[np.float64]) -> None:
        """Add a layer with its weights in int8."""
        source, kernel_name, bias_name = node.input
        kernel = self._constants.pop(kernel_name).astype(np.float64)
        bias = self._constants.pop(bias_name).astype(np.float64)
        outputs = kernel.reshape(len(kernel), -1)
        scales = np.abs(outputs).max(axis=1) / self._most
        if self._target == "cpu":
            scales = np.maximum(scales, np.abs(bias) / (LARGEST_BIAS * self._scales[source]))
        scales = scales.astype(np.float32)
        scales[scales < SMALLEST_STEP] = 1.0
        stored = np.clip(np.rint(outputs / scales[:, None].astype(np.float64)), -self._most, self._most)
        # Rounding shifts what a channel answers on average, by a known amount: the bias takes it back.
        error = (stored * scales[:, None] - outputs).reshape(*kernel.shape[:2], -1).sum(axis=2)
        bias = bias - error @ means
        weights = self._stored(kernel_name, stored.reshape(kernel.shape).astype(np.int8), scales)
        if self._target == "cpu":
            steps = (scales * np.float32(self._scales[source])).astype(np.float32)
            self.copy(node, weights, self._stored(bias_name, np.rint(bias / steps).astype(np.int32), steps))
        else:
            self._constants[bias_name] = bias.astype(np.float32)
            self.copy(node, weights, bias_name)

    def round(self, name: str, within: Range) -> None:
        """Round a tensor for all that read it."""
        step, zero, _, _ = grid(within, symmetric=self._target != "cpu")
        kind = np.uint8 if self._target == "cpu" else np.int8
        self._scales[name] = step
        self._constants |= {f"{name}.scale": np.asarray(step, np.float32), f"{name}.zero": np.asarray(zero, kind)}
        parameters = [f"{name}.scale", f"{name}.zero"]
        self._add("QuantizeLinear", [name, *parameters], f"{name}.stored")
        self._add("DequantizeLinear", [f"{name}.stored", *parameters], f"{name}.rounded")

    def _stored(self, name: str, values: NDArray[np.generic], scales: NDArray[np.float32]) -> str:
        """A constant as integers with a scale for each output channel; returns the float tensor that it stands for."""
        zeros = np.zeros(len(scales), values.dtype)
        self._constants |= {f"{name}.stored": values, f"{name}.scale": scales, f"{name}.zero": zeros}
        return self._add("DequantizeLinear", [f"{name}.{part}" for part in ("stored", "scale", "zero")], name, axis=0)

    def _add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def finished(self) -> onnx.ModelProto:
        """The new model, with all that was in the old one beside its nodes and constants."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(self._nodes)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self._constants.items())
        return model
