"""float16 and bfloat16: typed from end to end but for the borders, proven by their own limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from tiny import TrainedRun, checkpoint_of, small_spec

from tinyres.bench.contenders import find_contenders
from tinyres.checkpoint import load_weights, save_tensors
from tinyres.data.augment import normalize
from tinyres.errors import BackendUnavailable, ProofError
from tinyres.export import pipeline
from tinyres.export.certificate import read_certificate
from tinyres.export.limits import BF16, FP16
from tinyres.export.onnx import check_file, onnx_from_checkpoint
from tinyres.export.pipeline import export_onnx, prove_again
from tinyres.export.ranges import judge_range, largest_values
from tinyres.export.triton import export_triton
from tinyres.export.verify import verify
from tinyres.progress import Silent
from tinyres.runs import find_model
from tinyres.runtime.backends import open_runner

HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


@pytest.mark.parametrize("precision", HALVES)
def test_all_between_the_borders_is_half_and_the_borders_are_not(precision: str) -> None:
    checkpoint, _ = checkpoint_of(small_spec())
    content = onnx_from_checkpoint(checkpoint, precision=precision)  # type: ignore[arg-type]
    assert check_file(content).precision == precision
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content))
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {stored.pop("preprocess.mean"), stored.pop("preprocess.std")} == {TensorProto.FLOAT}
    assert set(stored.values()) == {HALVES[precision]}
    known = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    between = [
        node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Relu", "Add", "Gemm", "Flatten")
    ]
    assert {known[name] for name in between} == {HALVES[precision]}
    assert [output.type.tensor_type.elem_type for output in model.graph.output] == [TensorProto.FLOAT] * 2


@pytest.mark.parametrize("precision", HALVES)
def test_weights_are_the_nearest_half_numbers_of_the_folded_ones(precision: str) -> None:
    checkpoint, _ = checkpoint_of(small_spec())
    tensors = {name: tensor.double().numpy() for name, tensor in checkpoint.tensors.items()}
    scale = tensors["bn1.weight"] / np.sqrt(tensors["bn1.running_var"] + 1e-5)
    folded = torch.from_numpy(tensors["conv1.weight"] * scale[:, None, None, None])
    wanted = folded.to(torch.float16 if precision == "fp16" else torch.bfloat16).float().numpy()
    content = onnx_from_checkpoint(checkpoint, precision=precision)  # type: ignore[arg-type]
    stored = {tensor.name: tensor for tensor in onnx.load_model_from_string(content).graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(stored["conv1.weight"]).astype(np.float32), wanted)


def test_a_weight_that_float16_does_not_hold_is_named() -> None:
    checkpoint, _ = checkpoint_of(small_spec())
    large = dict(checkpoint.tensors) | {"fc.bias": torch.tensor([0.0, 7e4, 1.0])}
    with pytest.raises(ProofError, match=r"the weight fc\.bias holds 7e\+04, too large for fp16"):
        onnx_from_checkpoint(replace(checkpoint, tensors=large), precision="fp16")
    assert onnx_from_checkpoint(replace(checkpoint, tensors=large), precision="bf16")


def test_the_largest_values_are_those_of_pytorchs_layers() -> None:
    checkpoint, model = checkpoint_of(small_spec())
    images = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
    found = largest_values(onnx_from_checkpoint(checkpoint), images, progress=Silent())
    seen: dict[str, float] = {}
    layers = {"conv1": model.bn1, "layer2.0.conv2": model.layer2[0].bn2}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: float(out.abs().max())}))
    with torch.inference_mode():
        logits = model(normalize(torch.from_numpy(images), checkpoint.spec.preprocess))
    for name, value in seen.items():
        assert found[name] == pytest.approx(value, rel=1e-5)
    assert found["logits"] == pytest.approx(float(logits.abs().max()), rel=1e-5)


def test_layers_that_reach_too_far_do_not_pass_and_neither_does_nothing() -> None:
    assert judge_range({"a": 3.0, "b": 16000.0}).passed
    far = judge_range({"a": 3.0, "b": 17000.0})
    assert (far.passed, "(b)" in far.detail) == (False, True)
    assert judge_range({}).passed is False
    assert judge_range({"a": float("nan")}).passed is False
    assert judge_range({"a": 1.0, "b": float("inf")}).passed is False
    hidden = judge_range({"a": 1.0, "b": float("nan"), "c": 2.0})
    assert (hidden.passed, "(b)" in hidden.detail) == (False, True)


def test_a_layer_that_is_nan_for_one_picture_is_not_overlooked() -> None:
    checkpoint, _ = checkpoint_of(small_spec())
    content = onnx_from_checkpoint(checkpoint)
    model = onnx.load_model_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.name == "fc.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, np.nan, 0], np.float32), "fc.bias"))
    images = np.zeros((5, 16, 16, 3), np.uint8)
    assert not judge_range(largest_values(model.SerializeToString(), images, progress=Silent())).passed


def exported_as(trained: TrainedRun, precision: str, folder: Path) -> Path:
    return export_onnx(
        trained.best,
        folder / f"{precision}.onnx",
        precision=precision,  # type: ignore[arg-type]
        dataset=trained.started.dataset,
        batches=(1, 4, 9),
        progress=Silent(),
    ).path


def test_float16_is_proven_and_says_what_a_cpu_computes(trained: TrainedRun, tmp_path: Path) -> None:
    path = exported_as(trained, "fp16", tmp_path)
    certificate = read_certificate(path)
    assert (certificate.grade, certificate.limits) == ("full", FP16)
    assert [level.name for level in certificate.levels][:3] == ["file", "range", "numeric"]
    assert str(certificate.precision) == "fp16 stored, fp32 computed"
    assert verify(path, progress=Silent()).path == path


def test_bfloat16_is_proven_where_it_is_computed_and_refused_where_not(trained: TrainedRun, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = exported_as(trained, "bf16", tmp_path)
    certificate = read_certificate(path)
    assert (certificate.grade, certificate.limits, certificate.backend) == ("full", BF16, "openvino")
    with pytest.raises(BackendUnavailable, match="no bf16 arithmetic") as caught:
        open_runner(path, backend="onnxruntime-cpu")
    assert "openvino" in str(caught.value.hint)
    assert all(level.passed for level in verify(path, progress=Silent()).levels)  # by a backend that computes it
    written = export_triton(path, tmp_path / "triton", progress=Silent())
    assert written.throughput.where == "openvino on cpu"
    found = find_contenders(find_model(str(path), tmp_path), ["onnxruntime-cpu", "openvino"])
    assert {contender.backend: contender.absent for contender in found} == {
        "onnxruntime-cpu": "ONNX Runtime's CPU provider has no bf16 arithmetic",
        "openvino": "",
    }


def coarser(content: bytes) -> bytes:
    """float16 weights with the four bits of an 8-bit float: a conversion that went through the wrong type."""
    model = onnx.load_model_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            exact = torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
            rounded = exact.to(torch.float8_e4m3fn).float().numpy().astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    return bytes(model.SerializeToString())


def test_a_coarser_precision_in_float16s_name_is_set_aside(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline.onnx_from_checkpoint
    monkeypatch.setattr(
        pipeline,
        "onnx_from_checkpoint",
        lambda *args, precision="fp32": (
            coarser(real(*args, precision=precision)) if precision == "fp16" else real(*args, precision=precision)
        ),
    )
    with pytest.raises(ProofError, match="failed the numeric level"):
        exported_as(trained, "fp16", tmp_path)
    rejected = tmp_path / "fp16.onnx.rejected" / "fp16.onnx"
    assert prove_again(rejected, trained.best) == ProofError.exit_code


def test_an_overflow_that_no_answer_shows_is_set_aside(trained: TrainedRun, tmp_path: Path) -> None:
    known = load_weights(trained.best)
    # A stem that is a million times as large, and a first convolution after it that takes it back.
    tensors = dict(known.tensors)
    for name in ("bn1.weight", "bn1.bias"):
        tensors[name] = tensors[name] * 3e4
    for name in ("weight", "bias"):
        tensors[f"layer1.0.bn2.{name}"] = tensors[f"layer1.0.bn2.{name}"] * 3e4
    grown = tmp_path / "grown.safetensors"
    save_tensors(grown, tensors, known.spec, known.origin)
    with pytest.raises(ProofError, match=r"failed the range level: layers reach .*; float16 holds 65,504"):
        export_onnx(grown, tmp_path / "fp16.onnx", precision="fp16", dataset=None, batches=(1, 4, 9), progress=Silent())
