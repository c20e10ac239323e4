"""Quantisation written around a graph's layers: what is stored, where it rounds, and what stays in float32."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tiny import checkpoint_of, small_spec

from tinyres.errors import ProofError
from tinyres.export.calibration import measure, whole
from tinyres.export.int8 import work_of
from tinyres.export.onnx import check_file, describe, float_model, onnx_from_checkpoint
from tinyres.export.quantize import layers_of, quantize, quantized_layers, rounded_tensors
from tinyres.progress import Silent
from tinyres.runtime.metadata import Target
from tinyres.runtime.onnxruntime_cpu import count_int8

TARGETS: tuple[Target, ...] = ("cpu", "cuda", "tensorrt")
CHECKPOINT, _ = checkpoint_of(small_spec(widths=(8, 16)))
FLOATS = onnx_from_checkpoint(CHECKPOINT)
IMAGES = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
NAMES = rounded_tensors(float_model(CHECKPOINT), target="cpu")
MEASURED = measure(FLOATS, NAMES, IMAGES, progress=Silent())


def quantized(target: Target, kept: tuple[str, ...] = (), *, reduced: bool = False) -> onnx.ModelProto:
    ranges = {name: whole(histogram, symmetric=False) for name, histogram in MEASURED.items()}
    means = {name: histogram.means for name, histogram in MEASURED.items()}
    return quantize(float_model(CHECKPOINT), ranges, means, target=target, kept=kept, reduced=reduced)


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def run(model: onnx.ModelProto, names: list[str], images: NDArray[np.uint8] = IMAGES) -> list[NDArray[np.float32]]:
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "logits")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers: list[NDArray[np.float32]] = session.run(names, {"image": images})
    return answers


@pytest.mark.parametrize("target", TARGETS)
def test_the_file_says_what_it_is_for_and_keeps_the_promises_of_an_artifact(target: Target) -> None:
    metadata = check_file(describe(quantized(target), CHECKPOINT, "int8", target=target))
    assert (metadata.precision, metadata.target) == ("int8", target)


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_the_nearest_of_the_steps_of_their_own_channel(target: Target) -> None:
    exact = constants(float_model(CHECKPOINT))
    stored = constants(quantized(target))
    for layer, weight in (("conv1", "conv1.weight"), ("layer2.0.conv2", "layer2.0.conv2.weight"), ("fc", "fc.weight")):
        steps = stored[f"{weight}.scale"]
        assert stored[f"{weight}.stored"].dtype == np.int8, layer
        restored = stored[f"{weight}.stored"].astype(np.float64) * steps.reshape(-1, *[1] * (exact[weight].ndim - 1))
        assert steps.shape == (len(exact[weight]),)
        half = steps.reshape(-1, *[1] * (exact[weight].ndim - 1)) / 2
        assert (np.abs(restored - exact[weight]) <= half * (1 + 1e-5)).all()
        assert (np.abs(stored[f"{weight}.stored"]).reshape(len(steps), -1).max(axis=1) == 127).all()


def test_activations_are_unsigned_for_a_cpu_and_signed_around_zero_for_a_gpu() -> None:
    for target, kind in (("cpu", np.uint8), ("cuda", np.int8), ("tensorrt", np.int8)):
        model = quantized(target)  # type: ignore[arg-type]
        stored = constants(model)
        zeros = [stored[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
        assert {zero.dtype.type for zero in zeros} == {kind}
        if target != "cpu":
            assert not any(zeros)


def test_biases_are_integers_for_a_cpu_and_floats_for_a_gpu() -> None:
    stored = constants(quantized("cpu"))
    bias = stored["conv1.bias.stored"]
    assert bias.dtype == np.int32
    steps = stored["conv1.weight.scale"] * stored["preprocess.normalized.scale"]
    np.testing.assert_allclose(stored["conv1.bias.scale"], steps, rtol=1e-6)
    assert constants(quantized("tensorrt"))["conv1.bias"].dtype == np.float32


def test_a_bias_that_int32_could_not_hold_gets_larger_steps() -> None:
    model = float_model(CHECKPOINT)
    for tensor in model.graph.initializer:
        if tensor.name == "conv1.weight":
            small = numpy_helper.to_array(tensor).copy()
            small[0] *= 1e-12
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))
    ranges = {name: whole(histogram, symmetric=False) for name, histogram in MEASURED.items()}
    means = {name: histogram.means for name, histogram in MEASURED.items()}
    stored = constants(quantize(model, ranges, means, target="cpu"))
    restored = stored["conv1.bias.stored"].astype(np.float64) * stored["conv1.bias.scale"]
    assert restored[0] == pytest.approx(constants(model)["conv1.bias"][0], rel=1e-5)


@pytest.mark.parametrize(("target", "sides"), [("cpu", 2), ("tensorrt", 1)])
def test_residual_sums_are_rounded_where_the_target_fuses_them(target: Target, sides: int) -> None:
    model = quantized(target)
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    assert len(sums) == 3
    for node in sums:
        assert [name in restored for name in node.input] == [sides == 2, True]


@pytest.mark.parametrize("target", TARGETS)
def test_a_layer_that_is_kept_is_in_float32_with_its_weights(target: Target) -> None:
    names = layers_of(float_model(CHECKPOINT))
    assert quantized_layers(quantized(target)) == names
    model = quantized(target, ("conv1", "logits"))
    assert quantized_layers(model) == [name for name in names if name not in ("conv1", "logits")]
    exact, stored = constants(float_model(CHECKPOINT)), constants(model)
    for weight in ("conv1.weight", "conv1.bias", "fc.weight", "fc.bias"):
        np.testing.assert_array_equal(stored[weight], exact[weight])
    assert not {"preprocess.normalized", "flatten"} & {
        node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"
    }


@pytest.mark.parametrize("target", TARGETS)
def test_with_every_layer_kept_nothing_is_rounded(target: Target) -> None:
    names = tuple(layers_of(float_model(CHECKPOINT)))
    model = quantized(target, names)
    assert not Counter(node.op_type for node in model.graph.node).keys() & {"QuantizeLinear", "DequantizeLinear"}
    np.testing.assert_array_equal(run(model, ["logits"])[0], run(float_model(CHECKPOINT), ["logits"])[0])


def test_seven_bits_are_enough_for_a_pair_of_products_in_sixteen() -> None:
    stored = constants(quantized("cpu", reduced=True))
    most = max(int(np.abs(value).max()) for name, value in stored.items() if value.dtype == np.int8 and value.ndim > 1)
    assert most == 63
    assert 2 * most * 255 < 2**15


@pytest.mark.parametrize("target", TARGETS)
def test_the_bias_takes_back_what_rounding_a_layers_weights_shifts(target: Target) -> None:
    """Of the 1x1 convolution, which has no border: its mean answer is that of float32 but for rounding its input."""
    name, source = "layer2.0.downsample.0", "layer1.0.relu2"
    kept = tuple(layer for layer in layers_of(float_model(CHECKPOINT)) if layer != name)
    stored = constants(quantized(target, kept))
    exact = constants(float_model(CHECKPOINT))
    weights = stored[f"{name}.weight.stored"] * stored[f"{name}.weight.scale"].reshape(-1, 1, 1, 1).astype(np.float64)
    shift = (weights - exact[f"{name}.weight"])[:, :, 0, 0] @ MEASURED[source].means
    if target == "cpu":
        bias = stored[f"{name}.bias.stored"] * stored[f"{name}.bias.scale"].astype(np.float64)
    else:
        bias = stored[f"{name}.bias"].astype(np.float64)
    half_a_step = stored[f"{name}.bias.scale"].max() / 2 if target == "cpu" else 1e-6
    np.testing.assert_allclose(bias, exact[f"{name}.bias"] - shift, atol=1.01 * half_a_step)
    assert np.abs(shift).max() > 5 * half_a_step


@pytest.mark.parametrize("target", TARGETS)
def test_it_answers_nearly_as_the_float32_graph(target: Target) -> None:
    wanted, found = (
        run(float_model(CHECKPOINT), ["logits"])[0],
        run(quantized(target, reduced=target == "cpu"), ["logits"])[0],
    )  # without VNNI, eight bits overflow here
    signal = np.sqrt(((wanted - wanted.mean(axis=0)) ** 2).mean())
    assert np.sqrt(((found - wanted) ** 2).mean()) < 0.15 * signal


def test_onnx_runtime_computes_what_is_for_a_cpu_in_int8_and_what_is_for_a_gpu_not(tmp_path: object) -> None:
    def operations(target: Target) -> Counter[str]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = f"{tmp_path}/{target}.onnx"
        options.log_severity_level = 3
        onnxruntime.InferenceSession(quantized(target).SerializeToString(), options)
        return Counter(node.op_type for node in onnx.load(f"{tmp_path}/{target}.onnx").graph.node)

    convolutions = sum(node.op_type == "Conv" for node in float_model(CHECKPOINT).graph.node)
    assert operations("cpu")["QLinearConv"] == convolutions
    assert operations("cpu")["QLinearAdd"] == 2  # all but the last, whose answer is pooled in float32
    assert operations("tensorrt")["QLinearConv"] == 0


@pytest.mark.parametrize("kept", layers_of(float_model(CHECKPOINT)))
def test_onnx_runtime_computes_the_rest_in_int8_whatever_layer_is_kept(kept: str) -> None:
    model = quantized("cpu", (kept,))
    assert count_int8(describe(model, CHECKPOINT, "int8", target="cpu")) == len(quantized_layers(model))


@pytest.mark.parametrize("target", TARGETS)
def test_relu_stays_relu_where_no_library_makes_int8_of_a_layer_unasked(target: Target) -> None:
    operations = Counter(node.op_type for node in quantized(target, ("layer1.0.conv1",)).graph.node)
    assert operations["LeakyRelu"] == (target == "cpu")
    assert operations["Relu"] + operations["LeakyRelu"] == 7


def test_a_file_that_is_int8_in_name_only_is_refused() -> None:
    with pytest.raises(ProofError, match="says int8, and no layer's weights are"):
        check_file(describe(float_model(CHECKPOINT), CHECKPOINT, "int8", target="cpu"))
    with pytest.raises(ProofError, match="does not say for which target"):
        check_file(describe(quantized("cpu"), CHECKPOINT, "int8"))
    for made, said in (("cpu", "tensorrt"), ("tensorrt", "cpu")):
        with pytest.raises(ProofError, match=f"not rounded as {said} takes it"):
            check_file(describe(quantized(made), CHECKPOINT, "int8", target=said))  # type: ignore[arg-type]
    with pytest.raises(ProofError, match="operations it should not"):
        check_file(describe(quantized("cpu"), CHECKPOINT, "fp32"))


def test_signed_zero_points_off_zero_are_refused() -> None:
    model = quantized("cuda")
    for tensor in model.graph.initializer:
        if tensor.name == "relu.zero":
            tensor.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), tensor.name))
    with pytest.raises(ProofError, match="not rounded as cuda takes it"):
        check_file(describe(model, CHECKPOINT, "int8", target="cuda"))


def test_the_work_of_layers_is_their_multiplications() -> None:
    work = work_of(float_model(CHECKPOINT))
    counted = {  # kernel x channels in x channels out x places, by hand for 16x16 pictures and widths 8 and 16
        "conv1": 9 * 3 * 8 * 256,
        "layer1.0.conv1": 9 * 8 * 8 * 256,
        "layer2.0.downsample.0": 8 * 16 * 64,
        "layer2.0.conv1": 9 * 8 * 16 * 64,
        "layer2.1.conv2": 9 * 16 * 16 * 64,
        "logits": 16 * 3,
    }
    assert sum(work.values()) == pytest.approx(1)
    for (one, mine), (other, theirs) in pairwise(counted.items()):
        assert work[one] / work[other] == pytest.approx(mine / theirs)
    assert list(work) == layers_of(float_model(CHECKPOINT))


def test_dead_channels_and_tensors_do_not_divide_by_zero() -> None:
    model = float_model(CHECKPOINT)
    for tensor in model.graph.initializer:
        if tensor.name in ("layer1.0.conv1.weight", "layer1.0.conv1.bias"):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
    content = describe(model, CHECKPOINT, "fp32")
    measured = measure(content, NAMES, IMAGES, progress=Silent())
    ranges = {name: whole(histogram, symmetric=False) for name, histogram in measured.items()}
    means = {name: histogram.means for name, histogram in measured.items()}
    for target in TARGETS:
        wanted = run(onnx.load_model_from_string(content), ["logits"])[0]
        found = run(quantize(model, ranges, means, target=target, reduced=target == "cpu"), ["logits"])[0]
        signal = np.sqrt(((wanted - wanted.mean(axis=0)) ** 2).mean())
        assert np.sqrt(((found - wanted) ** 2).mean()) < 0.25 * signal
