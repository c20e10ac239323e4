"""ONNX Runtime's GPU providers: what they are asked for, and that nothing else may answer. On a GPU: test_gpu.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tinyres.errors import ArtifactError, BackendUnavailable
from tinyres.export.artifact import Exported
from tinyres.runtime import onnxruntime_cuda, onnxruntime_tensorrt
from tinyres.runtime.backends import open_runner
from tinyres.runtime.cuda import Device
from tinyres.runtime.onnxruntime_tensorrt import provider_settings

ADA = Device("Acted GPU", 8, 9, "13.0")
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
REAL = onnxruntime.InferenceSession


class Acted:
    """ONNX Runtime with GPU providers: its CPU computes, and what a session was asked for is kept."""

    def __init__(self, *, refuse: bool = False, falls_back: bool = False) -> None:
        self.refuse, self.falls_back = refuse, falls_back
        self.asked: list[tuple[list[Any], Any]] = []
        self.batches: list[int] = []

    def session(self, content: bytes, options: Any, *, providers: list[Any], enable_fallback: int) -> Any:
        assert enable_fallback == 0
        if providers == [CPU]:
            return REAL(content, options, providers=providers)
        self.asked.append((providers, options))
        if self.refuse:
            raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP\nmore")
        real = REAL(content, providers=[CPU])
        acted = self

        class Session:
            def get_providers(self) -> list[str]:
                return [CPU] if acted.falls_back else [providers[0][0], CPU]

            def get_modelmeta(self) -> Any:
                return real.get_modelmeta()

            def io_binding(self) -> Any:
                return real.io_binding()

            def run_with_iobinding(self, binding: Any) -> None:
                real.run_with_iobinding(binding)
                acted.batches.append(binding.copy_outputs_to_cpu()[0].shape[0])

        return Session()


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> Acted:
    known = Acted()
    monkeypatch.setattr(onnxruntime, "InferenceSession", known.session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime_tensorrt, "find_device", lambda: ADA)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    return known


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_this_onnxruntime_lacks_is_named_with_the_way_out(exported: Exported, backend: str) -> None:
    with pytest.raises(BackendUnavailable, match="this ONNX Runtime has no") as caught:
        open_runner(exported.path, backend=backend)
    assert "tinyres[gpu]" in str(caught.value.hint)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_the_answers_are_bound_and_those_of_the_graph(acted: Acted, exported: Exported, backend: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with open_runner(exported.path) as cpu, open_runner(exported.path, backend=backend) as gpu:
        assert (gpu.name, gpu.device) == (backend, "cuda:0")
        np.testing.assert_array_equal(gpu(images), cpu(images))
    assert acted.batches == [5]


def test_the_network_alone_is_timed_with_pictures_and_logits_on_the_device(
    acted: Acted, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_cuda.OnnxRuntimeGpu, "_memory", "cpu")
    with open_runner(exported.path, backend="onnxruntime-cuda") as gpu:
        parts = gpu.device_times(np.zeros((5, 16, 16, 3), dtype=np.uint8), 4)
    assert list(parts) == ["network, host clock"]
    (took,) = parts.values()
    assert len(took) == 4
    assert min(took) > 0
    assert acted.batches == [5] * 4


def test_float32_means_float32_and_the_cpu_gets_nothing(
    acted: Acted, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_runner(exported.path, backend="onnxruntime-cuda").close()
    open_runner(exported.path, backend="onnxruntime-tensorrt").close()
    (cuda, cuda_options), (tensorrt, tensorrt_options) = acted.asked
    assert cuda == [(CUDA, {"device_id": "0", "use_tf32": "0"})]
    ((name, settings),) = tensorrt
    assert name == TENSORRT
    assert (settings["trt_fp16_enable"], settings["trt_int8_enable"]) == ("0", "0")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    for options in (cuda_options, tensorrt_options):
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"


def test_int8_is_switched_on_for_tensorrt_and_said_to_be_float32_on_cuda(
    acted: Acted, exported: Exported, tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(exported.path.read_bytes().replace(b'"precision": "fp32"', b'"precision": "int8"'))
    with open_runner(path, backend="onnxruntime-cuda") as runner:
        assert str(runner.precision) == "int8 stored, fp32 computed"
    with open_runner(path, backend="onnxruntime-tensorrt") as runner:
        assert str(runner.precision) == "int8"
    assert acted.asked[1][0][0][1]["trt_int8_enable"] == "1"


def test_where_tf32_cannot_be_switched_off_any_more_it_is_not_claimed_to_be(
    acted: Acted, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "torch", started)
    with pytest.raises(BackendUnavailable, match="PyTorch has started CUDA"):
        open_runner(exported.path, backend="onnxruntime-tensorrt")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    open_runner(exported.path, backend="onnxruntime-tensorrt").close()


def test_a_session_that_fell_back_is_refused(acted: Acted, exported: Exported) -> None:
    acted.falls_back = True
    with pytest.raises(BackendUnavailable, match=f"asked for {CUDA}, got {CPU}"):
        open_runner(exported.path, backend="onnxruntime-cuda")


def test_nodes_left_to_the_cpu_are_the_backends_failure_and_a_bad_file_its_own(
    acted: Acted, exported: Exported, tmp_path: Path
) -> None:
    acted.refuse = True
    with pytest.raises(BackendUnavailable, match=f"{CUDA} does not run all of fp32.onnx here"):
        open_runner(exported.path, backend="onnxruntime-cuda")
    (tmp_path / "fp32.onnx").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="is not an ONNX model"):
        open_runner(tmp_path / "fp32.onnx", backend="onnxruntime-cuda")


def test_more_pictures_than_the_tensorrt_profile_takes_go_in_parts(acted: Acted, exported: Exported) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    with open_runner(exported.path) as cpu, open_runner(exported.path, backend="onnxruntime-tensorrt") as gpu:
        np.testing.assert_allclose(gpu(images), cpu(images), rtol=1e-5, atol=1e-5)
    assert acted.batches == [256, 44]


def test_engines_of_other_weights_drivers_and_gpus_are_cached_apart(exported: Exported, tmp_path: Path) -> None:
    retrained = tmp_path / "fp32.onnx"
    model = onnx.load(exported.path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(1), "fc.bias"))
    onnx.save(model, retrained)
    folders = [
        provider_settings(path, device, tensorrt)["trt_engine_cache_path"]
        for path, device, tensorrt in [
            (exported.path, ADA, "10.9.0"),
            (exported.path, ADA, "10.9.0"),
            (retrained, ADA, "10.9.0"),
            (exported.path, ADA, "10.9.1"),
            (exported.path, Device("Acted GPU", 8, 9, "13.1"), "10.9.0"),
            (exported.path, Device("Another", 8, 9, "13.0"), "10.9.0"),
        ]
    ]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 5
    assert all(Path(folder).is_dir() for folder in folders)
