"""Artifacts spoiled on purpose must not be published, and correct ones must."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tiny import Heard, TrainedRun

from tinyres.checkpoint import Checkpoint, load_weights, save_tensors, save_weights
from tinyres.data import shapes
from tinyres.data.augment import normalize
from tinyres.data.dataset import Split
from tinyres.errors import ArtifactError, BackendUnavailable, CheckpointError, ProofError, UsageError
from tinyres.export import onnx as onnx_module
from tinyres.export import pipeline
from tinyres.export.artifact import Exported
from tinyres.export.certificate import certificate_path, read_certificate
from tinyres.export.onnx import onnx_from_checkpoint
from tinyres.export.pipeline import export_onnx
from tinyres.header import Origin
from tinyres.model import ResNet, build_model
from tinyres.progress import Silent
from tinyres.runtime import metadata
from tinyres.spec import ModelSpec, Preprocess

ORIGIN = Origin(run="r", recipe="seed", data_kind="unknown", data_fingerprint="", epoch=0, step=0, selected_on="none")


def export_spoiled(
    trained: TrainedRun, target: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[onnx.ModelProto], None]
) -> ProofError:
    """Export with a conversion that makes one mistake; return the error it must end with."""

    def wrongly(checkpoint: Checkpoint, *, precision: str) -> bytes:
        assert precision == "fp32"
        model = onnx.load_model_from_string(onnx_from_checkpoint(checkpoint))
        spoil(model)
        return bytes(model.SerializeToString())

    monkeypatch.setattr(pipeline, "onnx_from_checkpoint", wrongly)
    with pytest.raises(ProofError) as caught:
        export_onnx(trained.best, target, dataset=trained.started.dataset, batches=(1, 4, 9), progress=Silent())
    return caught.value


def change_weight(
    model: onnx.ModelProto, name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    weight.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(weight).copy()), name))


def flip_one_weight(model: onnx.ModelProto) -> None:
    def flip(values: NDArray[np.float32]) -> NDArray[np.float32]:
        place = np.unravel_index(np.abs(values).argmax(), values.shape)
        values[place] = -values[place]
        return values

    change_weight(model, "layer2.0.conv2.weight", flip)


def scale_a_layer(model: onnx.ModelProto) -> None:
    change_weight(model, "layer1.0.conv1.weight", lambda values: values * np.float32(1.01))


def swap_mean_and_std(model: onnx.ModelProto) -> None:
    names = {"preprocess.mean": "preprocess.std", "preprocess.std": "preprocess.mean"}
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def read_bgr(model: onnx.ModelProto) -> None:
    change_weight(model, "conv1.weight", lambda values: values[:, ::-1].copy())


def permute_two_classes(model: onnx.ModelProto) -> None:
    for name in ("fc.weight", "fc.bias"):
        change_weight(model, name, lambda values: values[[1, 0, 2]])


def mix_neighbours(model: onnx.ModelProto) -> None:
    """Subtract the batch's mean from the pooled features, as a batch norm left in training mode does."""
    for node in model.graph.node:
        if node.op_type == "Gemm":
            node.input[0] = "mixed"
    place = next(index for index, node in enumerate(model.graph.node) if node.op_type == "Gemm")
    mean = onnx.helper.make_node("ReduceMean", ["flatten", "axis"], ["mean"], keepdims=1)
    mixed = onnx.helper.make_node("Sub", ["flatten", "mean"], ["mixed"])
    model.graph.node.insert(place, mixed)
    model.graph.node.insert(place, mean)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], dtype=np.int64), "axis"))


def nan_for_bright_pictures(model: onnx.ModelProto) -> None:
    """log(250 - brightest) is NaN where a pixel of the picture is above 250."""
    for node in model.graph.node:
        node.output[:] = ["clean" if name == "logits" else name for name in node.output]
        node.input[:] = ["logits" if name == "logits" else name for name in node.input]
    make = onnx.helper.make_node
    place = len(model.graph.node) - 1
    for node in reversed(
        [
            make("ReduceMax", ["preprocess.float", "axes"], ["brightest"], keepdims=0),
            make("Sub", ["bound", "brightest"], ["room"]),
            make("Log", ["room"], ["log"]),
            make("Mul", ["log", "zero"], ["nothing"]),
            make("Unsqueeze", ["nothing", "last"], ["column"]),
            make("Add", ["clean", "column"], ["logits"]),
        ]
    ):
        model.graph.node.insert(place, node)
    for name, value in {"bound": np.float32(250), "zero": np.float32(0)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    for name, axes in {"axes": [1, 2, 3], "last": [1]}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, dtype=np.int64), name))


def freeze_the_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def reverse_the_labels(model: onnx.ModelProto) -> None:
    """Every answer is right, and every label a user reads is wrong."""
    for entry in model.metadata_props:
        metadata = json.loads(entry.value)
        for field in ("class_ids", "class_names"):
            metadata["spec"][field].reverse()
        entry.value = json.dumps(metadata)


def overflow(model: onnx.ModelProto) -> None:
    change_weight(model, "fc.weight", lambda values: values * np.float32(1e37))
    change_weight(model, "conv1.weight", lambda values: values * np.float32(1e6))


SABOTAGE = {
    "class labels reversed": (reverse_the_labels, "file", ""),
    "every answer overflows": (overflow, "numeric", "conv1"),
    "batch frozen to 1": (freeze_the_batch, "file", ""),
    "one weight flipped": (flip_one_weight, "numeric", "layer2.0.conv2"),
    "a layer scaled by 1 %": (scale_a_layer, "numeric", "layer1.0.conv1"),
    "mean and std swapped": (swap_mean_and_std, "numeric", "preprocess.normalized"),
    "RGB read as BGR": (read_bgr, "numeric", "conv1"),
    "two classes permuted": (permute_two_classes, "numeric", "logits"),
    "an answer that depends on its neighbours": (mix_neighbours, "file", ""),
    "NaN for some pictures only": (nan_for_bright_pictures, "file", ""),
}


FOREIGN = {"Log", "Mul", "ReduceMax", "ReduceMean", "Unsqueeze"}
HIDDEN = {
    "an answer that depends on its neighbours": (mix_neighbours, "numeric"),
    "NaN for some pictures only": (nan_for_bright_pictures, "numeric"),
}
"""The two add operations that no graph of ours has, which the file level sees; these go on without it."""


@pytest.mark.parametrize("name", HIDDEN)
def test_what_a_clean_looking_graph_hides_is_found_by_its_answers(
    name: str, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, level = HIDDEN[name]
    monkeypatch.setattr(onnx_module, "OPERATIONS", onnx_module.OPERATIONS | FOREIGN)
    monkeypatch.setattr(metadata, "require_contained", lambda *_, **__: None)
    error = export_spoiled(trained, tmp_path / "fp32.onnx", monkeypatch, spoil)
    assert f"failed the {level} level" in str(error)


@pytest.mark.filterwarnings("ignore:Specified provider")  # ONNX Runtime's own, and all it does
def test_a_provider_that_falls_back_is_a_backend_failure(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyres.runtime import onnxruntime_cpu

    monkeypatch.setattr(onnxruntime_cpu, "PROVIDER", "CUDAExecutionProvider")
    with pytest.raises(BackendUnavailable, match="failed the backend level: asked for CUDAExecutionProvider") as caught:
        export_onnx(trained.best, tmp_path / "fp32.onnx", dataset=trained.started.dataset, progress=Silent())
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx.rejected"]


def test_a_backend_that_fails_on_the_way_is_a_backend_failure(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyres.runtime.onnxruntime_cpu import OnnxRuntimeCpu

    real = OnnxRuntimeCpu.infer

    def up_to_four(self: OnnxRuntimeCpu, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(images) > 4:
            raise BackendUnavailable("out of memory")
        return real(self, images)

    monkeypatch.setattr(OnnxRuntimeCpu, "infer", up_to_four)
    with pytest.raises(BackendUnavailable, match="failed the backend level: out of memory") as caught:
        export_onnx(
            trained.best, tmp_path / "x.onnx", dataset=trained.started.dataset, batches=(1, 4, 9), progress=Silent()
        )
    assert caught.value.exit_code == 4
    report = json.loads((tmp_path / "x.onnx.rejected" / "x.onnx.json").read_text())
    assert (report["grade"], [level["name"] for level in report["levels"] if not level["passed"]]) == (
        "rejected",
        ["backend"],
    )
    # Within the batches it can do, no level goes past them.
    made = export_onnx(
        trained.best, tmp_path / "y.onnx", dataset=trained.started.dataset, batches=(1, 2, 4), progress=Silent()
    )
    assert made.certificate.grade == "full"


def test_a_checkpoint_that_lacks_a_tensor_is_refused_before_anything_is_written(
    trained: TrainedRun, tmp_path: Path
) -> None:
    known = load_weights(trained.best)
    rest = {name: value for name, value in known.tensors.items() if name != "bn1.weight"}
    save_tensors(tmp_path / "holey.safetensors", rest, known.spec, known.origin)
    with pytest.raises(CheckpointError, match="do not fit their own spec"):
        export_onnx(tmp_path / "holey.safetensors", tmp_path / "x.onnx", dataset=None, progress=Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["holey.safetensors"]


def test_one_image_is_too_few_to_prove_on(trained: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="valid: 2 or more"):
        export_onnx(trained.best, tmp_path / "x.onnx", dataset=None, proof_images=1, progress=Silent())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grade": "full", "levels": []}, "contradicts itself"),
        ({"batches": [0, 0, 0]}, "contradicts itself"),
        ({"schema": 99}, "written by a newer tinyres"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_refused(
    change: dict[str, object], message: str, exported: Exported, tmp_path: Path
) -> None:
    path = Path(shutil.copy(exported.path, tmp_path / "fp32.onnx"))
    fields = json.loads(exported.certificate_file.read_text()) | change
    certificate_path(path).write_text(json.dumps(fields))
    with pytest.raises(ArtifactError, match=message):
        read_certificate(path)


def test_no_image_at_all_proves_nothing(trained: TrainedRun, tmp_path: Path) -> None:
    dataset = trained.started.dataset
    empty = replace(dataset, val=Split(images=dataset.val.images[:0], labels=dataset.val.labels[:0]))
    with pytest.raises(ProofError, match="failed the numeric level"):
        export_onnx(trained.best, tmp_path / "fp32.onnx", dataset=empty, progress=Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx.rejected"]


@pytest.mark.slow
def test_a_hundred_correct_exports_are_all_published(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    for number in range(100):
        stages = int(rng.integers(1, 5))
        names = tuple(f"class {index}" for index in range(int(rng.integers(2, 12))))
        spec = ModelSpec(
            class_names=names,
            class_ids=names,
            blocks=tuple(int(count) for count in rng.integers(1, 3, stages)),
            widths=tuple(int(width) for width in rng.integers(3, 24, stages)),
            preprocess=Preprocess(image_size=int(rng.integers(8, 40))),
        )
        torch.manual_seed(number)
        source = tmp_path / "best.safetensors"
        save_weights(source, settled(build_model(spec), spec), spec, ORIGIN)
        made = export_onnx(
            source, tmp_path / "fp32.onnx", dataset=None, batches=(1, 4, 9), cache_dir=tmp_path, progress=Silent()
        )
        assert made.certificate.grade == "numeric"


def settled(model: ResNet, spec: ModelSpec) -> ResNet:
    """Untrained, but with batch norm statistics of real activations, without which logits run off."""
    images = torch.from_numpy(np.stack([shapes.render("train", n, spec.input_shape[0]) for n in range(16)]))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
    with torch.no_grad():
        model.train()(normalize(images, spec.preprocess))
    return model.eval()


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_spoiled_artifact_is_set_aside_with_its_report(
    name: str, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, level, layer = SABOTAGE[name]
    target = tmp_path / "fp32.onnx"
    error = export_spoiled(trained, target, monkeypatch, spoil)
    assert error.exit_code == 3
    assert f"failed the {level} level" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx.rejected"]
    report = json.loads((tmp_path / "fp32.onnx.rejected" / "fp32.onnx.json").read_text())
    assert report["grade"] == "rejected"
    assert report["diverges"].startswith(f"{layer} is the first layer off") if layer else not report["diverges"]
    assert report["diverges"] in str(error)
    with pytest.raises(ProofError, match="failed its proof"):
        read_certificate(tmp_path / "fp32.onnx.rejected" / "fp32.onnx")


def test_a_rejection_leaves_the_artifact_before_it_and_a_success_settles_it(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "fp32.onnx"
    dataset = trained.started.dataset
    export_onnx(trained.best, target, dataset=dataset, batches=(1, 4, 9), progress=Silent())
    before = target.read_bytes()
    with monkeypatch.context() as patch:
        export_spoiled(trained, target, patch, flip_one_weight)
    assert target.read_bytes() == before
    assert read_certificate(target).grade == "full"
    export_onnx(trained.best, target, dataset=dataset, batches=(1, 4, 9), progress=Silent())
    assert not (tmp_path / "fp32.onnx.rejected").exists()


@pytest.mark.slow
def test_the_script_beside_a_rejected_file_shows_the_failure(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_spoiled(trained, tmp_path / "fp32.onnx", monkeypatch, scale_a_layer)
    script = tmp_path / "fp32.onnx.rejected" / "reproduce.py"
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "numeric: FAILED" in ended.stdout
    assert "layer1.0.conv1 is the first layer off" in ended.stdout


def test_the_certificate_binds_file_checkpoint_images_and_limits(exported: Exported, trained: TrainedRun) -> None:
    certificate = read_certificate(exported.path)
    assert certificate.grade == "full"
    names = ["file", "numeric", "decision", "accuracy", "consistency", "entry", "backend"]
    assert [level.name for level in certificate.levels] == names
    assert all(level.passed for level in certificate.levels)
    assert certificate.checkpoint_sha256 == load_weights(trained.best).sha256
    assert certificate.images.count == certificate.images.exact_count == 15
    assert certificate.images.data_fingerprint == trained.started.dataset.manifest.fingerprint


@pytest.mark.slow
def test_two_exports_from_two_folders_are_equal_but_for_the_time(trained: TrainedRun, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(
            trained.started.run.path, tmp_path / name / "runs" / "tiny", ignore=shutil.ignore_patterns("export")
        )
        command = [sys.executable, "-m", "tinyres", "export", "tiny", "--batch", "1:4:9", "--quiet"]
        subprocess.run(command, cwd=tmp_path / name, check=True, capture_output=True)
    one, two = (tmp_path / name / "runs" / "tiny" / "export" for name in ("one", "two"))
    for name in ("fp32.onnx", "fp32.onnx.golden.npz", "fp32.onnx.golden.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    first, second = (json.loads((folder / "fp32.onnx.json").read_text()) for folder in (one, two))
    first["created"] = second["created"] = ""
    assert first == second


def test_nothing_that_travels_names_this_machine(exported: Exported) -> None:
    private = [str(exported.path.parent), str(Path.home()), str(Path.cwd()), socket.gethostname(), "/tmp/"]  # noqa: S108
    for path in exported.path.parent.glob("fp32.onnx*"):
        content = path.read_bytes()
        assert [text for text in private if len(text) > 5 and text.encode() in content] == [], path.name
    # A host may be called by two letters, which packed bytes hold by chance: those are looked for as words of the text.
    words = set(re.findall(r"[\w-]+", certificate_path(exported.path).read_text()))
    assert words.isdisjoint(private)


def test_a_disk_that_fills_up_leaves_what_was_there(trained: TrainedRun, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.started.run.path, tmp_path / "tiny", ignore=shutil.ignore_patterns("export")))
    before = (run / "best.safetensors").read_bytes()
    program = (
        "import resource, sys; from tinyres.cli import app\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"  # a write past this fails as on a full disk
        "app(sys.argv[1:])"
    )
    ended = subprocess.run([sys.executable, "-c", program, "export", str(run)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
    assert "error: cannot write" in ended.stderr
    assert (run / "best.safetensors").read_bytes() == before
    assert not list(run.glob("export/*")) + list(run.glob("export/.*"))


def test_a_certificate_of_another_file_is_none(exported: Exported, tmp_path: Path) -> None:
    other = tmp_path / "fp32.onnx"
    other.write_bytes(exported.path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="has no certificate"):
        read_certificate(other)
    certificate_path(other).write_bytes(exported.certificate_file.read_bytes())
    with pytest.raises(ProofError, match="belongs to another file"):
        read_certificate(other)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 1}'])
def test_a_certificate_that_is_none_is_refused(text: str, exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    path.write_bytes(exported.path.read_bytes())
    certificate_path(path).write_text(text)
    with pytest.raises(ArtifactError, match="of another kind"):
        read_certificate(path)


def test_without_data_accuracy_is_not_proven(trained: TrainedRun, tmp_path: Path) -> None:
    heard = Heard()
    made = export_onnx(trained.best, tmp_path / "fp32.onnx", dataset=None, batches=(1, 4, 9), progress=heard)
    assert made.certificate.grade == "numeric"
    assert made.certificate.images.data_kind == "generated"
    assert [level.passed for level in made.certificate.levels if level.name == "accuracy"] == [None]
    assert [text.split(":")[0] for text in heard.warned] == ["accuracy not proven"]


def test_the_references_are_computed_once_for_a_checkpoint_and_its_images(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyres.export import evidence

    arguments = {"dataset": trained.started.dataset, "batches": (1, 4, 9), "progress": Silent()}
    export_onnx(trained.best, tmp_path / "a.onnx", cache_dir=tmp_path, **arguments)
    monkeypatch.setattr(evidence, "reference_logits", None)
    monkeypatch.setattr(evidence, "compute_logits", None)
    export_onnx(trained.best, tmp_path / "b.onnx", cache_dir=tmp_path, **arguments)
    for path in (tmp_path / "reference").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(TypeError):  # computed anew, by what is None now
        export_onnx(trained.best, tmp_path / "c.onnx", cache_dir=tmp_path, **arguments)


def test_data_with_other_classes_is_refused(trained: TrainedRun, tmp_path: Path) -> None:
    dataset = trained.started.dataset
    swapped = replace(dataset.manifest, class_ids=tuple(reversed(dataset.manifest.class_ids)))
    with pytest.raises(UsageError, match="has other classes than the model"):
        export_onnx(trained.best, tmp_path / "x.onnx", dataset=replace(dataset, manifest=swapped), progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_no_checkpoint(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"fp32\.onnx is no checkpoint"):
        export_onnx(exported.path, tmp_path / "x.onnx", dataset=None, progress=Silent())
