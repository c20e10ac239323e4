"""Running engines: passports and refusals for real, the calls to CUDA on an acted device. On a GPU: test_gpu.py."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from acted_cuda import ActedEngine, Cuda, Error, mean_colours
from tiny import TINY

from tinyres.errors import ArtifactError, BackendUnavailable
from tinyres.files import sha256_of
from tinyres.runtime import tensorrt, tensorrt_library
from tinyres.runtime.cuda import Device, Stream, find_device
from tinyres.runtime.metadata import ArtifactMetadata
from tinyres.runtime.passport import BuildOptions, Passport, here, read_passport, require_fit, sidecar_path
from tinyres.runtime.runner import Runner
from tinyres.runtime.tensorrt import GRAPHS, Engine
from tinyres.runtime.tensorrt_library import Library, Messages
from tinyres.spec import ModelSpec, Preprocess

ADA = Device("Acted GPU", 8, 9, "13.0")
NAMES = ("a", "b", "c")


def passport(**changes: object) -> Passport:
    spec = ModelSpec(
        class_names=NAMES,
        class_ids=NAMES,
        blocks=TINY.blocks,
        widths=TINY.widths,
        dropout=0.0,
        preprocess=Preprocess(image_size=16),
    )
    metadata = ArtifactMetadata(1, "0.1", spec, "fp32", "image", "c" * 64, "run", "recipe", "folders")
    known = Passport(
        library="tensorrt",
        version="10.3.0",
        compute_capability="8.9",
        gpu="Acted GPU",
        driver="13.0",
        platform=here(),
        options=BuildOptions((1, 4, 9), None, None, version_compatible=False, hardware_compatible=False),
        onnx_sha256="o" * 64,
        engine_sha256="",
        precision_proof="typed",
        metadata=metadata,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def library(version: str = "10.3.0", name: str = "tensorrt") -> Library:
    return Library(name, SimpleNamespace(__version__=version), None, Messages())  # type: ignore[arg-type]


def written(folder: Path, known: Passport) -> Path:
    engine = folder / "fp32.engine"
    engine.write_bytes(b"plan")
    known = replace(known, engine_sha256=sha256_of(engine))
    sidecar_path(engine).write_text(json.dumps({"passport": asdict(known)}))
    return engine


def acted_engine(cuda: Cuda) -> ActedEngine:
    return ActedEngine(cuda, mean_colours(len(NAMES)), classes=len(NAMES))


@pytest.fixture
def acted() -> tuple[Cuda, ActedEngine, Runner]:
    cuda = Cuda()
    engine = acted_engine(cuda)
    return cuda, engine, Runner(Engine(library(), engine, passport(), Stream(cuda), ADA))


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 4, 9, 10, 31])
def test_every_batch_gets_its_answers_more_than_the_profile_in_parts(
    acted: tuple[Cuda, ActedEngine, Runner], count: int
) -> None:
    _, engine, run = acted
    for _ in range(3):  # enqueued, then recorded, then replayed
        np.testing.assert_array_equal(run(pictures(count)), engine.answer(pictures(count)))


def test_a_batch_size_is_recorded_once_and_then_launched(acted: tuple[Cuda, ActedEngine, Runner]) -> None:
    cuda, engine, run = acted
    for number in range(5):
        images = pictures(4) + np.uint8(number)
        np.testing.assert_array_equal(run(images), engine.answer(images))
    assert cuda.launches == 3  # the first was enqueued, the second recorded
    assert engine.contexts == 2


def test_only_sizes_that_come_back_get_a_graph_and_not_more_than_there_is_room_for(
    acted: tuple[Cuda, ActedEngine, Runner],
) -> None:
    _, engine, run = acted
    for times in (0, GRAPHS, GRAPHS):
        for count in range(1, 10):
            np.testing.assert_array_equal(run(pictures(count)), engine.answer(pictures(count)))
        assert engine.contexts == 1 + times


def test_the_device_is_timed_part_by_part_and_nothing_of_it_stays(acted: tuple[Cuda, ActedEngine, Runner]) -> None:
    cuda, engine, run = acted
    run(pictures(9))
    held = len(cuda.held)
    parts = run.device_times(pictures(4), 3)
    # A millisecond for each thing on the stream, the end's event among them: two copies and the network make three.
    assert parts == {
        "copy in": [2_000_000] * 3,
        "network": [2_000_000] * 3,
        "copy out": [2_000_000] * 3,
        "all, enqueued": [4_000_000] * 3,
        "all, one graph": [4_000_000] * 3,
    }
    assert len(cuda.held) == held + 1  # the graph, which runs of that size go on with
    np.testing.assert_array_equal(run(pictures(4)), engine.answer(pictures(4)))
    assert run.device_times(pictures(20), 1) == {}  # more than the profile takes at once


def test_no_memory_for_a_context_is_an_error_of_ours(acted: tuple[Cuda, ActedEngine, Runner]) -> None:
    _, engine, run = acted
    engine.contexts_most = 1
    run(pictures(4))
    with pytest.raises(BackendUnavailable, match="made no execution context: too little memory"):
        run(pictures(4))


def test_what_cuda_does_not_take_back_hides_no_failure(acted: tuple[Cuda, ActedEngine, Runner]) -> None:
    cuda, engine, run = acted
    run(pictures(4))
    cuda.cudaFree = lambda address: (Error.cudaErrorMemoryAllocation,)  # type: ignore[method-assign]
    engine.fails = True
    with pytest.raises(BackendUnavailable, match="tensorrt failed"), run:
        run(pictures(4))
    assert "stream" not in cuda.held.values()


def test_all_that_was_taken_is_given_back(acted: tuple[Cuda, ActedEngine, Runner]) -> None:
    cuda, _, run = acted
    run(pictures(4))
    run(pictures(4))
    assert cuda.held
    run.close()
    assert cuda.held == {}


def test_a_batch_that_the_profile_refuses_is_an_error() -> None:
    cuda = Cuda()
    engine = ActedEngine(cuda, mean_colours(len(NAMES)), classes=len(NAMES), least=4)
    run = Runner(Engine(library(), engine, passport(), Stream(cuda), ADA))
    with pytest.raises(BackendUnavailable, match="refused a batch of 2"):
        run(pictures(2))


def test_a_run_that_fails_says_what_the_library_logged(acted: tuple[Cuda, ActedEngine, Runner]) -> None:
    _, engine, run = acted
    engine.fails = True
    with pytest.raises(BackendUnavailable, match="tensorrt failed"):
        run(pictures(1))


def test_memory_that_is_not_there_is_an_error_of_ours() -> None:
    cuda = Cuda()
    cuda.refuse = "memory"
    with pytest.raises(BackendUnavailable, match="refused cudaMallocHost: cudaErrorMemoryAllocation"):
        Engine(library(), acted_engine(cuda), passport(), Stream(cuda), ADA)


def test_a_device_is_described_and_its_absence_explained() -> None:
    assert find_device(Cuda()) == Device("Acted GPU", 8, 9, "13.0")
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        find_device(Cuda(driver=0))
    with pytest.raises(BackendUnavailable, match=r"no CUDA device here \(cudaErrorNoDevice\)"):
        find_device(Cuda(devices=0))
    old = Cuda(driver=12040)
    old.refuse = "driver"
    with pytest.raises(BackendUnavailable, match=r"for CUDA 12\.4, too old") as caught:
        find_device(old)
    assert "trt-cu12" in str(caught.value.hint)


def test_what_is_acted_of_cuda_has_nvidias_own_names() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    acted = [name for name in vars(Cuda) if name.startswith("cuda")]
    assert len(acted) > 15
    assert [name for name in acted if not hasattr(runtime, name)] == []
    for kind in ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"):
        assert hasattr(runtime.cudaMemcpyKind, kind)
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")


def test_a_passport_is_read_back(tmp_path: Path) -> None:
    known = passport()
    assert read_passport(written(tmp_path, known)).key == known.key


@pytest.mark.parametrize("spoil", ["truncated", "swapped", "no sidecar", "no passport", "damaged"])
def test_an_engine_that_is_not_its_passports_is_refused(tmp_path: Path, spoil: str) -> None:
    engine = written(tmp_path, passport())
    if spoil == "truncated":
        engine.write_bytes(b"pla")
    elif spoil == "swapped":
        engine.write_bytes(b"alp!")
    elif spoil == "no sidecar":
        sidecar_path(engine).unlink()
    elif spoil == "no passport":
        sidecar_path(engine).write_text('{"grade": "full"}')
    else:
        sidecar_path(engine).write_text('{"passport": {"library": "cuda"}}')
    with pytest.raises(ArtifactError):
        read_passport(engine)


def test_what_an_engine_was_built_for_must_be_here() -> None:
    require_fit(passport(), library(), ADA)
    elsewhere = {
        "another version": (passport(), library("10.3.1"), ADA),
        "another library": (passport(), library(name="tensorrt-rtx"), ADA),
        "another GPU": (passport(), library(), Device("H100", 9, 0, "13.0")),
        "another system": (passport(platform="Windows AMD64"), library(), ADA),
    }
    for known, found, device in elsewhere.values():
        with pytest.raises(
            BackendUnavailable, match=r"built for tensorrt 10\.3\.0 on Acted GPU, compute capability 8\.9"
        ):
            require_fit(known, found, device)


@pytest.mark.parametrize(
    ("built", "runs", "loads"),
    [
        ("8.6.1", "10.3.0", True),
        ("10.3.0", "10.16.1.11", True),
        ("10.16.1.11", "11.4.0.106", True),
        ("10.16.1.11", "10.3.0", False),
        ("8.6.1", "11.4.0.106", False),
        ("11.4.0.106", "10.16.1.11", False),
    ],
)
def test_version_compatible_engines_load_in_the_versions_of_nvidias_matrix(built: str, runs: str, loads: bool) -> None:
    options = BuildOptions((1, 4, 9), None, None, version_compatible=True, hardware_compatible=False)
    known = passport(version=built, options=options)
    if loads:
        require_fit(known, library(runs), ADA)
    else:
        with pytest.raises(BackendUnavailable, match="built for"):
            require_fit(known, library(runs), ADA)


def test_hardware_compatible_engines_load_from_ampere_on_and_in_the_same_version_alone() -> None:
    options = BuildOptions((1, 4, 9), None, None, version_compatible=False, hardware_compatible=True)
    known = passport(options=options)
    require_fit(known, library(), Device("H100", 9, 0, "13.0"))
    with pytest.raises(BackendUnavailable):
        require_fit(known, library(), Device("T4", 7, 5, "13.0"))
    with pytest.raises(BackendUnavailable):
        require_fit(known, library("11.4.0.106"), Device("H100", 9, 0, "13.0"))


def test_the_key_changes_with_all_that_a_build_depends_on() -> None:
    known = passport()
    others = [
        passport(version="10.3.1"),
        passport(onnx_sha256="p" * 64),
        passport(driver="12.8"),
        passport(gpu="Another"),
        passport(compute_capability="9.0"),
        passport(options=BuildOptions((1, 4, 10), None, None, version_compatible=False, hardware_compatible=False)),
    ]
    assert len({other.key for other in [known, *others]}) == 1 + len(others)
    assert replace(known, engine_sha256="e" * 64, precision_proof="inspected").key == known.key


def test_a_null_engine_is_refused_with_the_librarys_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = library()
    known.messages.errors.append("Error Code 1: Serialization assertion failed")
    known.module.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda content: None)
    monkeypatch.setattr(tensorrt_library, "load", lambda name: known)
    monkeypatch.setattr(tensorrt, "find_device", lambda: ADA)
    with pytest.raises(BackendUnavailable, match=r"refused fp32\.engine: Error Code 1: Serialization"):
        tensorrt.open_engine(written(tmp_path, passport()), Engine)


def test_without_the_library_or_a_driver_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tensorrt_library.MODULES, "tensorrt", "tensorrt_that_is_not_here")
    with pytest.raises(BackendUnavailable, match="tensorrt is not installed") as caught:
        tensorrt.open_engine(written(tmp_path, passport()), Engine)
    assert caught.value.hint == "pip install 'tinyres[trt]'"


def test_a_library_that_is_broken_is_not_called_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tensorrt_library.MODULES, "tensorrt", "broken_tensorrt")
    with pytest.raises(BackendUnavailable, match=r"is installed but does not load: libnvinfer\.so\.10"):
        tensorrt_library.load("tensorrt")
