from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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
