"""A checkpoint's network as an ONNX graph: one node for one operation, batch norms folded, nothing left over.

The graph is stated here a second time, from the weights alone, instead of being traced: it comes out the same bytes
every time, in a second, without stack traces, shape arithmetic or a batch frozen by an example. That the statement is
right is what the proof is for (docs/decisions/0001-graph-from-the-spec.md).

Half precision is typed: from the normalised picture to the logits all is float16 or bfloat16, and nothing else is. The
borders are float32: 255 steps of a colour do not survive in bfloat16, and probabilities not in float16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinyres.errors import ProofError
from tinyres.export.precisions import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from tinyres.spec import ModelSpec

BN_EPS = 1e-5

Input = Literal["image", "tensor"]
Floats = Literal["fp32", "fp16", "bf16"]
_TYPES: dict[Floats, Any] = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
_ELEMENTS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


class _Graph:
    """Nodes and weights in the order they are added; every node is named after the layer it comes from."""

    def __init__(self, precision: Floats) -> None:
        self.precision: Floats = precision
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operation: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def cast(self, features: str, output: str, to: Floats) -> str:
        return self.add("Cast", [features], output, to=_ELEMENTS[to])

    def weight(self, name: str, value: NDArray[np.float64]) -> str:
        """A constant of the network, in its precision. Errors: ProofError if a number is too large for that."""
        with np.errstate(over="ignore"):  # judged below, with its name
            stored = value.astype(np.float32).astype(_TYPES[self.precision])
        if not np.isfinite(stored.astype(np.float32)).all():
            largest = np.abs(value).max()
            raise ProofError(f"the weight {name} holds {largest:.3g}, too large for {self.precision}")
        tensor = TensorProto(name=name, data_type=_ELEMENTS[self.precision], dims=value.shape)
        tensor.raw_data = stored.tobytes()
        self.weights.append(tensor)
        return name

    def constant(self, name: str, value: NDArray[np.float64]) -> str:
        """A constant of the borders, in float32."""
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name


def build_graph(
    spec: ModelSpec, weights: Mapping[str, NDArray[np.floating]], *, input_kind: Input, precision: Floats = "fp32"
) -> onnx.ModelProto:
    """The ONNX model of `spec` with `weights` (under torchvision's names), without metadata.

    Input `image` (N, S, S, 3) uint8 RGB, or (N, 3, S, S) float32 normalised; outputs `logits` and `probabilities`
    (N, C) float32; N is free. Errors: ProofError for a weight that the precision cannot hold.
    """
    graph = _Graph(precision)
    exact = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    features = "image"
    if input_kind == "image":
        features = _preprocess(graph, spec)
    if precision != "fp32":
        features = graph.cast(features, "half", precision)
    features = _conv(graph, exact, features, "conv1", "bn1", stride=1, padding=1)
    features = graph.add("Relu", [features], "relu")
    for stage, blocks in enumerate(spec.blocks, start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            features = _block(graph, exact, features, f"layer{stage}.{block}", stride=stride)
    features = graph.add("GlobalAveragePool", [features], "pool")
    features = graph.add("Flatten", [features], "flatten", axis=1)
    weight = graph.weight("fc.weight", exact["fc.weight"])
    bias = graph.weight("fc.bias", exact["fc.bias"])
    graph.add("Gemm", [features, weight, bias], "logits" if precision == "fp32" else "fc", transB=1)
    if precision != "fp32":
        graph.cast("fc", "logits", "fp32")
    graph.add("Softmax", ["logits"], "probabilities", axis=1)

    size = spec.preprocess.image_size
    shape: list[str | int] = ["batch", size, size, 3] if input_kind == "image" else ["batch", 3, size, size]
    element = TensorProto.UINT8 if input_kind == "image" else TensorProto.FLOAT
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", spec.classes])
        for name in ("logits", "probabilities")
    ]
    body = helper.make_graph(
        graph.nodes, "tinyres", [helper.make_tensor_value_info("image", element, shape)], outputs, graph.weights
    )
    stored = PRECISIONS[precision]
    return helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", stored.opset)],
        ir_version=stored.ir_version,
        producer_name="tinyres",
    )


def _preprocess(graph: _Graph, spec: ModelSpec) -> str:
    """(x - 255 mean) / (255 std), as in training. Cast comes first: TensorRT takes uint8 into no other operation."""
    floats = graph.add("Cast", ["image"], "preprocess.float", to=TensorProto.FLOAT)
    planes = graph.add("Transpose", [floats], "preprocess.nchw", perm=[0, 3, 1, 2])
    mean = graph.constant("preprocess.mean", _per_channel(spec.preprocess.mean))
    std = graph.constant("preprocess.std", _per_channel(spec.preprocess.std))
    centered = graph.add("Sub", [planes, mean], "preprocess.centered")
    return graph.add("Div", [centered, std], "preprocess.normalized")


def _per_channel(values: tuple[float, float, float]) -> NDArray[np.float64]:
    return np.array([value * 255 for value in values]).reshape(1, 3, 1, 1)


def _block(graph: _Graph, weights: Mapping[str, NDArray[np.float64]], features: str, name: str, *, stride: int) -> str:
    skip = features
    if f"{name}.downsample.0.weight" in weights:
        skip = _conv(graph, weights, features, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride, padding=0)
    inner = _conv(graph, weights, features, f"{name}.conv1", f"{name}.bn1", stride=stride, padding=1)
    inner = graph.add("Relu", [inner], f"{name}.relu1")
    inner = _conv(graph, weights, inner, f"{name}.conv2", f"{name}.bn2", stride=1, padding=1)
    total = graph.add("Add", [inner, skip], f"{name}.add")
    return graph.add("Relu", [total], f"{name}.relu2")


def _conv(
    graph: _Graph,
    weights: Mapping[str, NDArray[np.float64]],
    features: str,
    conv: str,
    norm: str,
    *,
    stride: int,
    padding: int,
) -> str:
    """A convolution with its batch norm folded in, in float64, so that folding adds no error of its own."""
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + BN_EPS)
    kernel = weights[f"{conv}.weight"] * scale[:, None, None, None]
    shift = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    inputs = [features, graph.weight(f"{conv}.weight", kernel), graph.weight(f"{conv}.bias", shift)]
    return graph.add(
        "Conv",
        inputs,
        conv,
        kernel_shape=list(kernel.shape[2:]),
        pads=[padding] * 4,
        strides=[stride, stride],
    )
