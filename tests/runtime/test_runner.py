from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import TrainedRun

from tinyres.errors import ArtifactError, BackendUnavailable, CheckpointError, UsageError
from tinyres.export.artifact import Exported
from tinyres.runtime import backends
from tinyres.runtime.backends import BACKENDS, BackendInfo, open_runner, why_unavailable
from tinyres.runtime.fake import FakeBackend
from tinyres.runtime.runner import Precision, Runner
from tinyres.spec import ModelSpec, Preprocess

SPEC = ModelSpec(class_names=("a", "b"), class_ids=("1", "2"), preprocess=Preprocess(image_size=8))


def fake(answer: NDArray[np.generic] | None = None) -> Runner:
    return Runner(
        FakeBackend(SPEC, lambda images: np.zeros((len(images), 2), np.float32) if answer is None else answer)
    )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 8, 9, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_other_inputs_than_the_specs_are_refused(images: NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match=r"valid: uint8 \(N, 8, 8, 3\)"):
        fake()(images)


@pytest.mark.parametrize("answer", [np.zeros((1, 2)), np.zeros((2, 2), np.float32), np.zeros((1, 3), np.float32)])
def test_an_answer_of_another_shape_or_type_is_a_backend_failure(answer: NDArray[np.generic]) -> None:
    with pytest.raises(BackendUnavailable, match="answered"):
        fake(answer)(np.zeros((1, 8, 8, 3), np.uint8))


def test_views_are_made_contiguous_for_the_backend() -> None:
    seen: list[bool] = []
    backend = FakeBackend(SPEC, lambda images: seen.append(images.flags.c_contiguous) or np.zeros((2, 2), np.float32))
    Runner(backend)(np.zeros((4, 8, 8, 3), np.uint8)[::2])
    assert seen == [True]


def test_a_runner_closes_its_backend_once() -> None:
    backend = FakeBackend(SPEC, lambda images: np.zeros((len(images), 2), np.float32))
    with Runner(backend) as runner:
        assert not backend.closed
    runner.close()
    assert backend.closed == 1


def test_every_backend_gives_the_same_logits(exported: Exported, trained: TrainedRun) -> None:
    images = trained.started.dataset.val.images
    with open_runner(exported.path) as onnx, open_runner(trained.best, backend="pytorch") as torch:
        assert (onnx.name, onnx.device, onnx.precision) == ("onnxruntime-cpu", "cpu", Precision("fp32", "fp32"))
        assert onnx.spec == torch.spec
        assert np.allclose(onnx(images), torch(images), rtol=1e-4, atol=1e-4)


def test_precision_says_when_more_is_computed_than_stored() -> None:
    assert str(Precision("fp16", "fp32")) == "fp16 stored, fp32 computed"
    assert str(Precision("fp32", "fp32")) == "fp32"


def test_an_unknown_backend_suggests_the_close_one(exported: Exported) -> None:
    with pytest.raises(UsageError) as caught:
        open_runner(exported.path, backend="onnxruntime")
    assert "did you mean 'onnxruntime-cpu'?" in str(caught.value.hint)


def test_a_file_that_the_backend_does_not_take_is_refused(exported: Exported) -> None:
    with pytest.raises(UsageError, match=r"pytorch opens \.safetensors files"):
        open_runner(exported.path, backend="pytorch")
    with pytest.raises(UsageError, match=r"no backend opens notes\.txt"):
        open_runner("notes.txt")


def test_a_missing_library_names_the_command_that_installs_it(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "absent", BackendInfo("no_such_module_here", "no_such_module_here", "trt", ".onnx"))
    with pytest.raises(BackendUnavailable, match="absent needs the package no_such_module_here") as caught:
        open_runner(exported.path, backend="absent")
    assert caught.value.hint == "pip install 'tinyres[trt]'"
    assert why_unavailable("absent") is not None
    assert backends.why_unavailable("onnxruntime-cpu") is None


def test_where_openvino_alone_is_installed_it_is_what_opens_a_file(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backends.backend_for(exported.path) == "onnxruntime-cpu"
    here = {"openvino"}
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda package: package if package in here else None)
    assert backends.backend_for(exported.path) == "openvino"
    here.clear()
    assert backends.backend_for(exported.path) == "onnxruntime-cpu"


def test_an_onnx_file_that_is_none_and_a_foreign_one_are_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    (tmp_path / "none.onnx").write_bytes(b"text")
    with pytest.raises(ArtifactError, match=r"none\.onnx is not an ONNX model"):
        open_runner(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match="cannot read"):
        open_runner(tmp_path / "absent.onnx")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match="carries no tinyres metadata"):
        open_runner(tmp_path / "foreign.onnx")


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.safetensors").write_bytes(b"text")
    with pytest.raises(CheckpointError):
        open_runner(tmp_path / "none.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("way", BACKENDS["pytorch"].ways)
def test_each_way_of_pytorch_runs_as_it_says_or_says_why_not(
    trained: TrainedRun, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with open_runner(trained.best, backend="pytorch") as usual:
        wanted = usual(images)
    try:
        runner = open_runner(trained.best, backend="pytorch", way=way, threads=1)
    except BackendUnavailable as exc:
        assert "bf16 instructions" in str(exc) or "C++ compiler" in str(exc)  # noqa: PT017 - either is an answer
        return
    half = way.endswith("bf16")
    with runner:
        assert runner.precision == (Precision("bf16", "bf16") if half else Precision("fp32", "fp32"))
        for count in (5, 1, 3):
            np.testing.assert_allclose(runner(images[:count]), wanted[:count], atol=0.3 if half else 1e-4)
        assert not half or np.abs(runner(images) - wanted).max() > 1e-6  # it did compute in less
        assert ("1 graph without a break" in runner.evidence) == way.startswith("compiled")


def test_a_way_that_there_is_not_is_refused(trained: TrainedRun, exported: Exported) -> None:
    with pytest.raises(UsageError, match="there is no way of pytorch 'compield'") as caught:
        open_runner(trained.best, backend="pytorch", way="compield")
    assert "did you mean 'compiled'?" in str(caught.value.hint)
    with pytest.raises(UsageError, match="there is no way of onnxruntime-cpu"):
        open_runner(exported.path, backend="onnxruntime-cpu", way="eager")


def test_what_a_cpu_or_an_installation_cannot_do_is_refused(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyres.environment._cpu", lambda: ("Old", frozenset({"avx2"})))
    with pytest.raises(BackendUnavailable, match="no bf16 instructions"):
        open_runner(trained.best, backend="pytorch", way="eager bf16")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendUnavailable, match=r"needs a C\+\+ compiler") as caught:
        open_runner(trained.best, backend="pytorch", way="compiled")
    assert caught.value.hint == "apt-get install g++"


@pytest.mark.slow
def test_what_cannot_be_compiled_is_the_backends_failure(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("the compiler broke\nmore")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    with pytest.raises(BackendUnavailable, match=r"torch\.compile failed: the compiler broke$"):
        open_runner(trained.best, backend="pytorch", way="compiled")
