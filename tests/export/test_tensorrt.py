"""Building engines: really, by TensorRT for RTX, which needs no GPU; and by the recorded names of other versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from recorded_tensorrt import APIS, ENGINE, Recorded, library
from tiny import Heard, TrainedRun

from tinyres.checkpoint import load_weights
from tinyres.errors import ArtifactError, BackendUnavailable, ProofError, StorageError, UsageError
from tinyres.export import tensorrt
from tinyres.export.artifact import Exported
from tinyres.export.calibration import measure, whole
from tinyres.export.onnx import describe, float_model, onnx_from_checkpoint
from tinyres.export.quantize import quantize, rounded_tensors
from tinyres.export.tensorrt import build_engine, inspected_precision, require_symmetric
from tinyres.progress import Silent
from tinyres.runtime.metadata import Target
from tinyres.runtime.passport import BuildOptions
from tinyres.runtime.tensorrt_library import Library, load, wrap

PLAIN = BuildOptions((1, 4, 9), None, None, version_compatible=False, hardware_compatible=False)
VERSIONS = sorted(APIS)


@pytest.fixture(scope="module")
def content(exported: Exported) -> bytes:
    return exported.path.read_bytes()


@pytest.fixture(scope="module")
def half(trained: TrainedRun) -> bytes:
    return onnx_from_checkpoint(load_weights(trained.best), precision="fp16")


@pytest.fixture(scope="module")
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx")
    return load("tensorrt-rtx")


def recorded(version: str, **kinds: object) -> Library:
    return wrap("tensorrt", library(version, **kinds))  # type: ignore[arg-type]


def calls(known: Library, kind: str) -> list[tuple[object, ...]]:
    """What was called and set on the config or another object that was made last."""
    made: list[Recorded] = known.module.made
    names = set(APIS[known.version]["classes"][kind])
    return next(object_.calls for object_ in reversed(made) if object_._names == names)


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_rtx_builds_a_real_engine_ahead_of_time_for_each_capability(
    rtx: Library, content: bytes, capability: str
) -> None:
    built = build_engine(content, rtx, PLAIN, compute_capability=capability, progress=Silent())
    assert len(built.content) > 1000
    assert "layers typed as fp32" in built.precision_proof


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_rtx_builds_half_precision_that_is_typed_and_notices_a_wrong_label(
    rtx: Library, half: bytes, capability: str
) -> None:
    built = build_engine(half, rtx, PLAIN, compute_capability=capability, progress=Silent())
    assert "layers typed as fp16" in built.precision_proof
    mislabelled = half.replace(b'"precision": "fp16"', b'"precision": "fp32"')
    with pytest.raises(ProofError, match="as fp16, not fp32"):
        build_engine(mislabelled, rtx, PLAIN, compute_capability=capability, progress=Silent())


def test_rtx_builds_typed_bfloat16(rtx: Library, trained: TrainedRun) -> None:
    content = onnx_from_checkpoint(load_weights(trained.best), precision="bf16")
    built = build_engine(content, rtx, PLAIN, compute_capability="8.9", progress=Silent())
    assert "layers typed as bf16" in built.precision_proof


def test_rtx_refuses_float32_for_turing_before_the_library_does(
    rtx: Library, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"no float32 matrices on Turing \(7\.5\)"):
        build_engine(content, rtx, PLAIN, compute_capability="7.5", progress=Silent())
    monkeypatch.setattr(tensorrt, "TURING", "")  # what it is refused for is still so
    with pytest.raises(BackendUnavailable, match=r"built no engine: .*Turing"):
        build_engine(content, rtx, PLAIN, compute_capability="7.5", progress=Silent())


def test_rtx_names_what_it_builds_for(rtx: Library, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"builds for no compute capability 9\.9") as caught:
        build_engine(content, rtx, PLAIN, compute_capability="9.9", progress=Silent())
    assert "8.9" in str(caught.value.hint)


def test_rtx_shows_progress_while_it_builds(rtx: Library, content: bytes) -> None:
    seen: list[str] = []

    class Watching(Silent):
        def task(self, name: str, total: int, unit: str):  # type: ignore[no-untyped-def]
            seen.append(name)
            return super().task(name, total, unit)

    build_engine(content, rtx, PLAIN, compute_capability="8.9", progress=Watching())
    assert seen == ["building: Building engine"]


def test_a_profile_that_is_none_is_refused(rtx: Library, content: bytes) -> None:
    backwards = replace(PLAIN, batches=(9, 4, 1))
    with pytest.raises((UsageError, BackendUnavailable)):
        build_engine(content, rtx, backwards, compute_capability="8.9", progress=Silent())


def test_a_file_that_is_no_onnx_and_one_with_a_foreign_operation_are_refused(rtx: Library, content: bytes) -> None:
    model = onnx.load_model_from_string(content)
    model.graph.node.append(helper.make_node("Sin", ["logits"], ["sine"], name="sine"))
    with pytest.raises(ProofError, match="operations it should not: Sin"):
        build_engine(model.SerializeToString(), rtx, PLAIN, progress=Silent())
    with pytest.raises(ArtifactError, match="no ONNX file"):
        build_engine(b"no onnx", rtx, PLAIN, progress=Silent())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_by_the_names_it_has(content: bytes, version: str) -> None:
    known = recorded(version)
    options = BuildOptions((1, 4, 9), 512, 3, version_compatible=True, hardware_compatible=True)
    built = build_engine(content, known, options, progress=Silent())
    assert built.content.startswith(ENGINE)
    module = known.module
    config = calls(known, "IBuilderConfig")
    assert ("clear_flag", module.BuilderFlag.TF32) in config
    assert ("set_memory_pool_limit", module.MemoryPoolType.WORKSPACE, 512 * 2**20) in config
    assert ("set_flag", module.BuilderFlag.VERSION_COMPATIBLE) in config
    assert ("builder_optimization_level", 3) in config
    assert ("hardware_compatibility_level", module.HardwareCompatibilityLevel.AMPERE_PLUS) in config
    shapes = [(batch, 16, 16, 3) for batch in (1, 4, 9)]
    assert ("set_shape", "image", *shapes) in calls(known, "IOptimizationProfile")


@pytest.mark.parametrize(("version", "flags"), [("8.6.1", 1), ("10.3.0", 2), ("10.16.1.11", 2), ("11.4.0.106", 0)])
def test_each_version_gets_the_network_it_knows(version: str, flags: int) -> None:
    # EXPLICIT_BATCH is bit 0 of 8.6, STRONGLY_TYPED bit 1 of 10, and 11 has nothing left to ask for.
    assert recorded(version).network_flags() == flags


def test_only_the_oldest_parser_gets_an_older_opset(content: bytes) -> None:
    for version, opset in (("8.6.1", 17), ("10.3.0", 18), ("11.4.0.106", 18)):
        known = recorded(version)
        build_engine(content, known, PLAIN, progress=Silent())
        assert known.module.parsed.opset_import[0].version == opset
        assert [node.op_type for node in known.module.parsed.graph.node] == [
            node.op_type for node in onnx.load_model_from_string(content).graph.node
        ]


def test_half_precision_without_types_is_bound_for_the_heavy_layers_alone(content: bytes, half: bytes) -> None:
    known = recorded("8.6.1")
    build_engine(content, known, PLAIN, progress=Silent())
    assert not [call for call in calls(known, "IBuilderConfig") if call[0] == "set_flag"]  # float32 needs no flag
    known = recorded("8.6.1")
    build_engine(half, known, PLAIN, progress=Silent())
    assert ("set_flag", known.module.BuilderFlag.FP16) in calls(known, "IBuilderConfig")
    assert ("set_flag", known.module.BuilderFlag.OBEY_PRECISION_CONSTRAINTS) in calls(known, "IBuilderConfig")
    layers = [made for made in known.module.made if made._names == set(APIS["8.6.1"]["classes"]["ILayer"])]
    heavy = [layer for layer in layers if layer.type.name in tensorrt.HEAVY]
    assert len(heavy) > 1
    bound = [("precision", known.module.DataType.HALF), ("set_output_type", 0, known.module.DataType.HALF)]
    assert all(layer.calls == (bound if layer in heavy else []) for layer in layers)


@pytest.mark.parametrize("version", VERSIONS)
def test_half_precision_that_was_widened_is_no_engine(half: bytes, version: str) -> None:
    assert "layers" in build_engine(half, recorded(version), PLAIN, progress=Silent()).precision_proof
    with pytest.raises(ProofError, match="as fp32, not fp16"):
        build_engine(half, recorded(version, widen=True), PLAIN, progress=Silent())


def test_a_precision_that_a_version_lacks_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tensorrt.check_file(content)
    monkeypatch.setattr(tensorrt, "check_file", lambda content: replace(metadata, precision="bf16"))
    with pytest.raises(UsageError, match=r"8\.6\.1 knows no bf16"):
        build_engine(content, recorded("8.6.1"), PLAIN, progress=Silent())


def test_half_precision_that_is_too_large_ahead_of_time_is_refused(
    rtx: Library, content: bytes, half: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "OVERHEAD", -(10**9))
    with pytest.raises(ProofError, match="they were widened"):
        build_engine(half, rtx, PLAIN, compute_capability="8.9", progress=Silent())
    # Where nothing is wider than what was asked for, or an inspector can tell, size says nothing.
    assert build_engine(content, rtx, PLAIN, compute_capability="8.9", progress=Silent())
    assert build_engine(half, recorded("11.4.0.106"), PLAIN, progress=Silent())


@pytest.mark.parametrize("version", VERSIONS)
def test_measured_kernels_are_kept_and_given_to_the_next_build(content: bytes, version: str, tmp_path: Path) -> None:
    kept = tmp_path / "kernels"
    for before in (b"", b"measured"):
        known = recorded(version)
        build_engine(content, known, PLAIN, timing_cache=kept, progress=Silent())
        assert known.module.timing_cache == before
        assert kept.read_bytes() == b"measured"


def test_a_timing_cache_that_cannot_be_kept_does_not_cost_the_engine(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()

    def full(path: Path, content: bytes) -> None:
        raise StorageError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(tensorrt, "write_bytes", full)
    assert build_engine(content, recorded("10.3.0"), PLAIN, timing_cache=tmp_path / "c", progress=heard).content
    assert heard.warned == [f"the timing cache is not kept: cannot write {tmp_path / 'c'}: No space left on device"]


def test_what_the_library_logged_is_the_error(content: bytes) -> None:
    known = recorded("10.3.0", fail="Error Code 9: out of everything\nsecond line")
    with pytest.raises(BackendUnavailable, match=r"built no engine: Error Code 9: out of everything$"):
        build_engine(content, known, PLAIN, progress=Silent())


def test_tensorrt_itself_builds_for_no_other_gpu(content: bytes) -> None:
    with pytest.raises(UsageError, match="for the GPU at hand alone"):
        build_engine(content, recorded("10.3.0"), PLAIN, compute_capability="8.9", progress=Silent())


@pytest.fixture(scope="module")
def int8(trained: TrainedRun) -> bytes:
    """With the first layer in float32."""
    return quantized(trained, "tensorrt", ("conv1",))


def quantized(trained: TrainedRun, target: Target, kept: tuple[str, ...] = ()) -> bytes:
    checkpoint = load_weights(trained.best)
    model = float_model(checkpoint)
    names = rounded_tensors(model, target=target)
    images = np.array(trained.started.dataset.train.images)
    measured = measure(onnx_from_checkpoint(checkpoint), names, images, progress=Silent())
    ranges = {name: whole(histogram, symmetric=True) for name, histogram in measured.items()}
    means = {name: histogram.means for name, histogram in measured.items()}
    model = quantize(model, ranges, means, target=target, kept=kept)
    return describe(model, checkpoint, "int8", target=target)


@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_rtx_builds_real_int8_engines_with_the_layers_of_the_file(rtx: Library, int8: bytes, capability: str) -> None:
    built = build_engine(int8, rtx, PLAIN, compute_capability=capability, progress=Silent())
    assert "6 layers typed as int8, 1 as fp32" in built.precision_proof
    assert built.int8_layers == 6


@pytest.mark.parametrize("version", VERSIONS)
def test_int8_that_was_widened_is_no_engine(int8: bytes, version: str) -> None:
    known = recorded(version)
    assert "6 layers" in build_engine(int8, known, PLAIN, progress=Silent()).precision_proof
    flags = [call[1] for call in calls(known, "IBuilderConfig") if call[0] == "set_flag"]
    assert (getattr(known.module.BuilderFlag, "INT8", None) in flags) is (version == "8.6.1")
    with pytest.raises(ProofError, match="took 0 layers as int8, and the file has 6"):
        build_engine(int8, recorded(version, widen=True), PLAIN, progress=Silent())


def test_rtx_refuses_int8_for_turing_which_has_no_float32_for_the_rest(rtx: Library, int8: bytes) -> None:
    with pytest.raises(UsageError, match=r"no float32 matrices on Turing \(7\.5\)"):
        build_engine(int8, rtx, PLAIN, compute_capability="7.5", progress=Silent())


def test_int8_for_a_cpu_is_refused_with_the_fix(trained: TrainedRun) -> None:
    with pytest.raises(ArtifactError, match="unsigned or not centred") as caught:
        build_engine(quantized(trained, "cpu"), recorded("10.3.0"), PLAIN, progress=Silent())
    assert caught.value.hint == "tinyres export --precision int8 --target tensorrt"


def test_the_inspector_must_show_as_many_int8_layers_as_the_file_has() -> None:
    layer = {"LayerType": "CaskConvolution", "Weights": {"Type": "Int8", "Count": 432}}
    other = {"LayerType": "CaskConvolution", "Weights": {"Type": "Float", "Count": 432}}
    text = json.dumps({"Layers": [other, layer, layer]})
    assert inspected_precision(text, "int8", 2) == "the inspector shows int8 in 2 layers"
    with pytest.raises(ProofError, match="computes 2 layers in int8, and the file has 3"):
        inspected_precision(text, "int8", 3)


@pytest.mark.parametrize(("zero", "kind"), [(3, np.int8), (0, np.uint8)])
def test_int8_that_is_unsigned_or_off_zero_is_refused_with_the_fix(zero: int, kind: type) -> None:
    point = numpy_helper.from_array(np.array(zero, dtype=kind), "zero")
    scale = numpy_helper.from_array(np.array(0.1, dtype=np.float32), "scale")
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], name="conv1.quantized")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [scale, point]))
    with pytest.raises(ArtifactError, match=r"conv1\.quantized is unsigned or not centred") as caught:
        require_symmetric(model)
    assert caught.value.hint == "tinyres export --precision int8 --target tensorrt"


INSPECTED = {
    "8.6": {"Weights": {"Type": "Half", "Count": 432}, "Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]},
    "10": {"Inputs": [{"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]},
    "10 plain": {"Inputs": [{"Name": "x", "Format/Datatype": "Half"}]},
    "11": {"Inputs": [{"Name": "x", "Format": "Linear", "DataType": "Half"}]},
}


@pytest.mark.parametrize("version", INSPECTED)
def test_the_inspector_confirms_a_precision_or_refuses_it(version: str) -> None:
    convolution = {"Name": "conv1", "LayerType": "CaskConvolution", **INSPECTED[version]}
    reformat = {"Name": "Reformatting for conv1", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Float"}]}
    text = json.dumps({"Layers": [reformat, convolution], "Bindings": ["image", "logits"]})
    assert inspected_precision(text, "fp16") == "the inspector shows fp16 in 1 layers"
    with pytest.raises(ProofError, match=r"computes conv1 in (half|fp16)"):
        inspected_precision(text, "fp32")


def test_the_inspector_must_show_types_and_no_tf32() -> None:
    with pytest.raises(ProofError, match="shows no convolution"):
        inspected_precision(json.dumps({"Layers": ["conv1"]}), "fp16")
    silent = {"Name": "conv1", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "N/A"}]}
    with pytest.raises(ProofError, match="in nothing known"):
        inspected_precision(json.dumps({"Layers": [silent]}), "fp32")
    loose = silent | {"Weights": {"Type": "Float"}, "TacticName": "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32"}
    with pytest.raises(ProofError, match="conv1 in TF32"):
        inspected_precision(json.dumps({"Layers": [loose]}), "fp32")


def test_a_profile_without_batch_1_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match="batches from 4 on could not classify one picture"):
        build_engine(content, recorded("10.3.0"), replace(PLAIN, batches=(4, 8, 16)), progress=Silent())


@pytest.mark.parametrize("option", ["--timing-cache", "--version-compatible", "--hardware-compatible"])
def test_what_rtx_does_not_have_is_refused(rtx: Library, content: bytes, tmp_path: Path, option: str) -> None:
    compatible = {"version_compatible": "--version-compatible", "hardware_compatible": "--hardware-compatible"}
    options = replace(PLAIN, **{name: option == flag for name, flag in compatible.items()})
    cache = tmp_path / "cache" if option == "--timing-cache" else None
    with pytest.raises(UsageError, match=option):
        build_engine(content, rtx, options, compute_capability="8.9", timing_cache=cache, progress=Silent())
    assert not (tmp_path / "cache").exists()
