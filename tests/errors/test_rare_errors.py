"""Errors that no command provokes on a sound machine: acted libraries, packages that are missing, calls of the API."""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from tiny import TrainedRun, small_spec
from torch import nn

from tinyres import checkpoint, drawing, records
from tinyres.bench.studies import peers, startup
from tinyres.cli.command import run_guarded
from tinyres.console import Console
from tinyres.data import cache
from tinyres.data.sources import Shapes, find_source
from tinyres.errors import (
    ArtifactError,
    BackendUnavailable,
    CheckpointError,
    DataError,
    ProofError,
    StorageError,
    TinyresError,
    TrainingError,
    UsageError,
)
from tinyres.export import diff
from tinyres.export import tensorrt as engines
from tinyres.progress import Silent
from tinyres.run_data import require_same_classes
from tinyres.runs import Run
from tinyres.runtime import cuda, openvino_cpu, pytorch, tensorrt_library
from tinyres.runtime.fake import FakeBackend
from tinyres.runtime.metadata import KEY, ArtifactMetadata, read_metadata
from tinyres.runtime.onnxruntime_cpu import OnnxRuntimeCpu
from tinyres.runtime.onnxruntime_cuda import OnnxRuntimeGpu
from tinyres.runtime.passport import BuildOptions, Passport
from tinyres.runtime.runner import Precision, Runner
from tinyres.seed import weights as seed
from tinyres.training import distributed, launch
from tinyres.training.trainer import Trainer

Patch = pytest.MonkeyPatch
FP32 = Precision("fp32", "fp32")
PICTURE = np.zeros((1, 16, 16, 3), np.uint8)


def fails(*_: object, **__: object) -> Any:
    raise RuntimeError("the device is on fire\nat line 7")


# --- packages that are not there


def absent(package: str, patch: Patch) -> None:
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        patch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("package", "work", "message", "extra"),
    [
        (
            "safetensors",
            lambda: checkpoint.save_state(Path("x"), {}),
            "writing a checkpoint needs the package",
            "train",
        ),
        ("safetensors", lambda: checkpoint.load_state(Path("x")), "reading a checkpoint needs", "train"),
        ("matplotlib", lambda: drawing.draw_curves(Path("x"), {}), "drawing needs the package matplotlib", "train"),
        ("cuda", cuda.bindings, "engines run through the package cuda-bindings", "trt"),
    ],
    ids=["writing", "reading", "drawing", "engines"],
)
def test_a_package_that_is_missing_is_named_with_its_command(
    package: str, work: Callable[[], object], message: str, extra: str, monkeypatch: Patch
) -> None:
    absent(package, monkeypatch)
    with pytest.raises(BackendUnavailable, match=message) as caught:
        work()
    assert f"pip install 'tinyres[{extra}]'" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (SimpleNamespace(), "tensorrt is installed without its libraries"),
        (SimpleNamespace(Builder=1, ILogger=object, __version__="8.5.3"), "tensorrt 8.5.3 is too old"),
    ],
    ids=["a stub", "old"],
)
def test_a_tensorrt_that_cannot_be_used_says_why(module: object, message: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda _name: module)
    with pytest.raises(BackendUnavailable, match=message) as caught:
        tensorrt_library.load("tensorrt")
    assert caught.value.hint


# --- backends that fail


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (
            OnnxRuntimeCpu(SimpleNamespace(run=fails, get_providers=list), small_spec(), FP32),
            "ONNX Runtime failed: the",
        ),
        (
            OnnxRuntimeGpu.__new__(OnnxRuntimeGpu),
            "ONNX Runtime failed: the device is on fire",
        ),
        (
            openvino_cpu.OpenVino(SimpleNamespace(create_infer_request=fails), small_spec(), FP32, ""),
            "OpenVINO failed: ",
        ),
    ],
    ids=["onnxruntime-cpu", "onnxruntime-cuda", "openvino"],
)
def test_a_library_that_fails_on_a_picture_is_one_line(backend: Any, message: str) -> None:
    if isinstance(backend, OnnxRuntimeGpu):
        backend._most, backend._session = 1, SimpleNamespace(io_binding=fails)
    with pytest.raises(BackendUnavailable, match=message) as caught:
        backend.infer(PICTURE)
    assert "\n" not in str(caught.value)


def test_a_network_that_fails_in_pytorch_is_one_line() -> None:
    network = nn.Identity()
    network.forward = fails
    backend = pytorch.PyTorch(network, small_spec(), torch.device("cpu"), torch.float32, evidence="")
    with pytest.raises(BackendUnavailable, match="PyTorch failed: the device is on fire"):
        backend.infer(PICTURE)


def test_a_compiler_that_compiles_nothing_is_found_out(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    with pytest.raises(BackendUnavailable, match=r"torch.compile compiled nothing"):
        pytorch._compiled(nn.Identity(), small_spec(), torch.device("cpu"), torch.float32)


def test_a_gpu_without_bf16_is_refused(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    with pytest.raises(BackendUnavailable, match="this GPU has no bf16 arithmetic"):
        pytorch._require_bf16(torch.device("cuda"))


def test_openvino_that_does_not_compile_a_file_says_so(monkeypatch: Patch) -> None:
    core = SimpleNamespace(read_model=lambda *_: None, compile_model=fails)
    monkeypatch.setattr(openvino_cpu.openvino, "Core", lambda: core)
    metadata = SimpleNamespace(precision="fp32")
    monkeypatch.setattr(openvino_cpu, "read_artifact", lambda _path: (b"", metadata))
    with pytest.raises(BackendUnavailable, match=r"OpenVINO does not compile fp32.onnx: "):
        openvino_cpu.open_backend(Path("fp32.onnx"), threads=None)


@pytest.mark.parametrize(("shown", "said"), [("f4", "f4"), (None, "nothing")])
def test_arithmetic_that_openvino_does_not_name_is_not_trusted(shown: str | None, said: str) -> None:
    def text(value: str) -> object:
        return SimpleNamespace(astype=lambda _kind: value)

    heavy = SimpleNamespace(
        get_rt_info=lambda: {"runtimePrecision": text(shown or ""), "layerType": text("Convolution")}
    )
    operations = [heavy] if shown else []
    compiled = SimpleNamespace(get_runtime_model=lambda: SimpleNamespace(get_ops=lambda: operations))
    with pytest.raises(BackendUnavailable, match=f"OpenVINO says that it computes in {said}"):
        openvino_cpu.computed_in(compiled)


# --- engines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute_capability": "new"}, "compute capability 'new'; valid: two numbers"),
        ({"version": "../10"}, "version '../10' of tensorrt; valid: numbers"),
        ({"options": BuildOptions((8, 4, 2), None, None, False, False)}, "valid: three rising numbers"),
    ],
    ids=["capability", "version", "batches"],
)
def test_a_passport_with_values_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    sound: dict[str, Any] = {field.name: "" for field in dataclasses.fields(Passport)}
    sound |= {"library": "tensorrt", "version": "10.13", "compute_capability": "8.9"}
    sound["options"] = BuildOptions((1, 32, 256), None, None, False, False)
    assert Passport(**sound).version == "10.13"
    with pytest.raises(UsageError, match=message):
        Passport(**{**sound, **change})


def test_a_timing_cache_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernels").write_bytes(b"of another GPU")
    config = SimpleNamespace(create_timing_cache=lambda _content: None)
    with pytest.raises(ArtifactError, match="no timing cache of this version and GPU") as caught:
        engines._timing_cache(config, tmp_path / "kernels")
    assert caught.value.hint == "remove it, or name another"


def test_a_timing_cache_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*: Is a directory"):
        engines._timing_cache(None, tmp_path)


def test_a_parsed_network_without_a_convolution_proves_nothing() -> None:
    library: Any = SimpleNamespace(name="tensorrt")
    with pytest.raises(ProofError, match="the network that tensorrt parsed holds no convolution"):
        engines._prove_types(SimpleNamespace(num_layers=0), library, "fp32", [])


def test_a_file_of_tensors_is_not_built(monkeypatch: Patch) -> None:
    metadata = SimpleNamespace(precision="fp32", input="tensor")
    monkeypatch.setattr(engines, "check_file", lambda _content: metadata)
    monkeypatch.setattr(engines, "require_buildable", lambda *_, **__: None)
    library: Any = None
    options = BuildOptions((1, 32, 256), None, None, False, False)
    with pytest.raises(ArtifactError, match="engines are built from files that take pictures"):
        engines.build_engine(b"", library, options, compute_capability=None, timing_cache=None, progress=Silent())


def test_metadata_of_a_newer_tinyres_ask_for_it() -> None:
    metadata = ArtifactMetadata(99, "9.9", small_spec(), "fp32", "image", "0" * 64, "run", "demo", "shapes")
    with pytest.raises(ArtifactError, match=r"x.onnx was made by a newer tinyres \(9.9\)") as caught:
        read_metadata({KEY: records.to_json(metadata)}, place="x.onnx")
    assert caught.value.hint == "pip install -U tinyres"


# --- data, checkpoints and runs


def test_what_safetensors_makes_of_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: Patch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StorageError, match=r"cannot write .*last.safetensors: No space left"):
        checkpoint.save_state(tmp_path / "last.safetensors", {"step": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_cache_is_not_built_inside_a_starting_worker(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(DataError, match="a data set is opened while Python starts a worker") as caught:
        cache.build(Shapes(), small_spec().preprocess, tmp_path, Silent())
    assert "__main__" in str(caught.value.hint)


def test_tiny_imagenet_without_its_archive_names_the_command() -> None:
    with pytest.raises(DataError, match="tiny-imagenet is not downloaded") as caught:
        find_source("tiny-imagenet")
    assert caught.value.hint == "tinyres data prepare --data tiny-imagenet"


def test_data_of_another_size_is_not_judged_on(trained: TrainedRun) -> None:
    spec = trained.started.config.spec
    other = dataclasses.replace(spec, preprocess=dataclasses.replace(spec.preprocess, image_size=32))
    with pytest.raises(UsageError, match="data is cached at 16 pixels, the model takes 32"):
        require_same_classes(trained.started.dataset, other)


def test_models_of_other_sizes_are_not_compared(monkeypatch: Patch) -> None:
    spec = small_spec()
    wide = dataclasses.replace(spec, preprocess=dataclasses.replace(spec.preprocess, image_size=32))
    runners = {
        name: Runner(FakeBackend(kind, lambda images: np.zeros((len(images), 3), np.float32)))
        for name, kind in {"a": spec, "b": wide}.items()
    }
    monkeypatch.setattr(diff, "open_runner", lambda path: nullcontext(runners[path.name]))
    with pytest.raises(UsageError, match="a takes 16 pixels, b takes 32 pixels: they are not given"):
        diff.compare(Path("a"), Path("b"), None, progress=Silent())


def test_seed_weights_without_a_batch_norm_are_named() -> None:
    with pytest.raises(CheckpointError, match="has no batch norm that fits conv1"):
        seed.convert({"conv1.0.bias": torch.zeros(4)}, place="odd.pth")


def test_an_imported_run_is_not_trained(trained: TrainedRun) -> None:
    config = dataclasses.replace(trained.started.config, recipe=None)
    with pytest.raises(UsageError, match="there is no training to go on with"):
        Trainer(trained.started.run, config, trained.started.dataset, progress=Silent())


def test_a_run_whose_folder_was_removed_is_not_written_again(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"the run's folder .* is gone") as caught:
        Run(tmp_path / "gone").require_folder()
    assert caught.value.hint


# --- several processes


def test_a_process_whose_first_has_no_run_ends() -> None:
    world: Any = SimpleNamespace(first=lambda _mine: (Path(), None, None))
    with pytest.raises(TrainingError, match="the first process has begun no run"):
        launch._follow(world, cache_dir=None, progress=Silent())


def test_processes_that_cannot_be_reached_are_one_line(monkeypatch: Patch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(distributed.distributed, "init_process_group", fails)
    with pytest.raises(TrainingError, match="cannot join the other 2 processes: the device"), distributed.joined():
        pass


# --- programs of our own


def test_a_defect_of_ours_is_one_line_that_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(Console(), fails) == TinyresError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("error: RuntimeError: the device is on fire")
    assert "hint: this is a defect of tinyres; --debug shows where" in said


def test_the_startup_bench_needs_the_demo(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no demo run here"):
        startup.main()


def test_a_benchmark_app_that_says_no_median_is_a_failure(monkeypatch: Patch) -> None:
    monkeypatch.setattr(peers, "noise", lambda _path, _count: PICTURE)
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="it went well"))
    with pytest.raises(BackendUnavailable, match="benchmark_app reported no median: it went well"):
        peers._benchmark_app(Path("x.onnx"), 1, 1)
