"""From a proven ONNX file to an engine: for real as far as a machine without a GPU goes, then on an acted one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from acted_cuda import Cuda
from recorded_tensorrt import ENGINE, library, rtx_on
from tiny import Heard, TrainedRun
from typer.testing import CliRunner

from tinyres.bench.contenders import find_contenders
from tinyres.cli import app
from tinyres.describe import describe
from tinyres.errors import ArtifactError, BackendUnavailable, ProofError, UsageError
from tinyres.export import engine, formats, golden
from tinyres.export.artifact import Exported
from tinyres.export.certificate import Certificate, certificate_path, read_certificate
from tinyres.export.engine import choose_destination, export_engine
from tinyres.export.options import Int8Options
from tinyres.export.pipeline import export_onnx
from tinyres.export.triton import export_triton
from tinyres.export.verify import prove_rejected, verify
from tinyres.files import cache_root
from tinyres.progress import Silent
from tinyres.runs import find_model
from tinyres.runtime import cuda, tensorrt_library
from tinyres.runtime.backends import open_runner
from tinyres.runtime.passport import BuildOptions, here, read_passport, sidecar_path
from tinyres.runtime.tensorrt_library import Library, wrap

PLAIN = BuildOptions((1, 4, 9), None, None, version_compatible=False, hardware_compatible=False)


@pytest.fixture
def onnx(exported: Exported, tmp_path: Path) -> Path:
    """The artifact with all that lies beside it, somewhere else."""
    for path in exported.path.parent.glob("fp32.onnx*"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / "fp32.onnx"


@dataclass
class Place:
    """A machine: a library and a device, or neither."""

    monkeypatch: pytest.MonkeyPatch

    def has(self, device: Cuda | None = None, **libraries: ModuleType) -> None:
        """`tensorrt` and `tensorrt_rtx` are the only libraries, `device` the only GPU."""
        known: dict[str, Library] = {
            name.replace("_", "-"): wrap(name.replace("_", "-"), module)  # type: ignore[arg-type]
            for name, module in libraries.items()
        }

        def load(name: str) -> Library:
            if name not in known:
                raise BackendUnavailable(f"{name} is not installed here", hint="pip install it")
            return known[name]

        self.monkeypatch.setattr(tensorrt_library, "load", load)
        self.monkeypatch.setattr(tensorrt_library, "installed", lambda: list(known))
        self.monkeypatch.setattr(cuda, "bindings", lambda: device if device is not None else Cuda(driver=0))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


@pytest.fixture(scope="module")
def rtx() -> ModuleType:
    return pytest.importorskip("tensorrt_rtx")


def acted(place: Place, version: str = "10.16.1.11", **kinds: Any) -> None:
    device = Cuda()
    place.has(device, tensorrt=library(version, cuda=device, **kinds))


def build(onnx: Path, *, options: BuildOptions = PLAIN, **more: Any) -> Exported:
    destination = choose_destination("auto", None)
    return export_engine(onnx, onnx.parent, destination=destination, options=options, progress=Silent(), **more)


# Ahead of time, without a device: TensorRT for RTX itself.


def test_without_a_device_the_engine_is_built_and_says_that_nothing_ran_it(
    place: Place, rtx: ModuleType, onnx: Path
) -> None:
    place.has(tensorrt_rtx=rtx)
    built = build(onnx)
    assert built.path.name == f"fp32-rtx{rtx.__version__}-sm89.unproven.engine"
    assert built.certificate.grade == "unproven"
    levels = {level.name: level for level in built.certificate.levels}
    assert levels.pop("file").passed
    assert all(level.passed is None for level in levels.values())
    assert "no NVIDIA driver here" in levels["numeric"].detail
    passport = read_passport(built.path)
    assert passport.compute_capability == "8.9"
    assert passport.onnx_sha256 == read_certificate(onnx).artifact_sha256
    assert golden.fingerprint(built.path) == built.certificate.golden_sha256
    assert golden.json_path(built.path).is_file()


def test_an_unproven_engine_is_refused_by_bench_and_triton(
    place: Place, rtx: ModuleType, trained: TrainedRun, onnx: Path, tmp_path: Path
) -> None:
    place.has(tensorrt_rtx=rtx)
    built = build(onnx)
    with pytest.raises(ProofError, match="no device has run it yet") as caught:
        export_triton(built.path, tmp_path / "triton", progress=Silent())
    assert "tinyres verify" in str(caught.value.hint)
    assert not (tmp_path / "triton").exists()
    run = Path(shutil.copytree(trained.started.run.path, tmp_path / "runs" / "copy"))
    for path in onnx.parent.glob("fp32-rtx*"):
        shutil.copy(path, run / "export" / path.name)
    (row,) = find_contenders(find_model(str(run), tmp_path), ["tensorrt-rtx"])
    assert "no device has run it yet" in row.absent
    with pytest.raises(ProofError, match="no device has run it yet"):  # where it is what was named
        find_contenders(find_model(str(run / "export" / built.path.name), tmp_path), None)


def test_an_engine_is_reused_only_for_the_same_file_and_options(place: Place, rtx: ModuleType, onnx: Path) -> None:
    place.has(tensorrt_rtx=rtx)
    heard = Heard()

    def said() -> list[str]:
        return [line.split(maxsplit=1)[0] for line in heard.lines]

    def again(options: BuildOptions = PLAIN) -> Exported:
        destination = choose_destination("auto", None)
        return export_engine(onnx, onnx.parent, destination=destination, options=options, progress=heard)

    first = again()
    assert said() == ["building", "built"]
    assert again() == first
    assert said()[2:] == ["reused"]
    again(replace(PLAIN, batches=(1, 5, 9)))
    assert said()[3:] == ["building", "built"]
    assert any(line.endswith(", in place of one with other options") for line in heard.lines)
    again()
    first.path.write_bytes(first.path.read_bytes()[:-1])  # cut short
    again()
    assert said()[5:] == ["building", "built"] * 2


def test_info_tells_what_an_engine_was_built_of_and_for(place: Place, rtx: ModuleType, onnx: Path) -> None:
    place.has(tensorrt_rtx=rtx)
    built = build(onnx, options=replace(PLAIN, optimization_level=0, workspace_mb=64))
    found = describe(built.path)
    assert found.kind == "TensorRT engine"
    assert found.facts["built by"] == f"tensorrt-rtx {rtx.__version__}"
    assert found.facts["for"] == f"compute capability 8.9, {here()}"
    assert found.facts["batches"] == "1 to 9, fastest at 4"
    assert found.facts["options"] == "workspace mb 64, optimization level 0"
    assert found.facts["ONNX file"] == read_certificate(onnx).artifact_sha256
    assert found.facts["certificate"].endswith("grade unproven, 15 images")
    built.path.write_bytes(b"another")
    with pytest.raises(ArtifactError, match="is not the engine of its passport"):
        describe(built.path)


def test_what_rtx_lacks_is_refused_whether_or_not_there_is_an_engine(
    place: Place, rtx: ModuleType, onnx: Path, tmp_path: Path
) -> None:
    place.has(tensorrt_rtx=rtx)
    for _ in range(2):
        with pytest.raises(UsageError, match="--timing-cache is TensorRT's"):
            build(onnx, timing_cache=tmp_path / "cache")
        build(onnx)


def test_a_gpu_outside_the_matrix_is_warned_of(place: Place, rtx: ModuleType, onnx: Path) -> None:
    place.has(tensorrt_rtx=rtx)
    ended = CliRunner().invoke(app, ["export", str(onnx), "--format", "trt", "--compute-capability", "8.0"])
    assert "compute capability 8.0 is not in the support matrix" in " ".join(ended.stderr.split())


def test_without_its_golden_vectors_a_file_is_not_built_from(place: Place, rtx: ModuleType, onnx: Path) -> None:
    place.has(tensorrt_rtx=rtx)
    golden.golden_path(onnx).unlink()
    with pytest.raises(ArtifactError, match=r"cannot read .*golden\.npz"):
        build(onnx)
    assert list(onnx.parent.glob("*.engine*")) == []


def test_options_that_do_not_apply_are_refused(trained: TrainedRun, onnx: Path) -> None:
    def ends(*words: str) -> tuple[int, str]:
        ended = CliRunner().invoke(app, ["export", *words])
        return ended.exit_code, " ".join(ended.stderr.split())

    for kind in ("onnx", "triton"):
        code, said = ends("tiny", "--runs", str(trained.runs), "--workspace", "5", "--format", kind)
        assert (code, f"--format {kind} has no options of engines" in said) == (2, True)
    code, said = ends(str(onnx), "--format", "trt", "--proof-images", "9")
    assert (code, "is proven over the golden vectors beside it" in said) == (2, True)


def test_an_unproven_engine_opens_for_its_proof_alone_whatever_it_is_called(
    place: Place, rtx: ModuleType, onnx: Path
) -> None:
    place.has(device := Cuda(), tensorrt_rtx=rtx_on(rtx, device, onnx.read_bytes()))
    destination = replace(choose_destination("rtx", None), device=None, absent="not asked")
    built = export_engine(onnx, onnx.parent, destination=destination, options=PLAIN, progress=Silent())
    renamed = built.path.with_name("fp32.engine")
    for path, other in ((built.path, renamed), (sidecar_path(built.path), sidecar_path(renamed))):
        shutil.copy(path, other)
    for engine_file in (built.path, renamed):
        with pytest.raises(ProofError, match=r"is not proven \(grade unproven\)"):
            open_runner(engine_file)
    with open_runner(verify(built.path, progress=Silent()).path) as run:
        assert run.name == "tensorrt-rtx"


def test_verify_does_not_take_the_place_of_an_engine_that_is_there(place: Place, rtx: ModuleType, onnx: Path) -> None:
    place.has(device := Cuda(), tensorrt_rtx=rtx_on(rtx, device, onnx.read_bytes()))
    build(onnx)
    destination = replace(choose_destination("rtx", None), device=None, absent="not asked")
    unproven = export_engine(onnx, onnx.parent, destination=destination, options=PLAIN, progress=Silent()).path
    with pytest.raises(UsageError, match="it is proven here, but there is a"):
        verify(unproven, progress=Silent())
    assert unproven.is_file()


def test_an_engine_from_elsewhere_says_the_command_before_a_device_is_missed(
    place: Place, rtx: ModuleType, onnx: Path
) -> None:
    place.has(tensorrt_rtx=rtx)
    built = build(onnx)
    path = sidecar_path(built.path)
    path.write_text(path.read_text().replace(f'"version": "{rtx.__version__}"', '"version": "1.6.0.1"'))
    told = r"built for tensorrt-rtx 1\.6\.0\.1 .*; here is .* \(tinyres export tiny --format trt builds one"
    with pytest.raises(BackendUnavailable, match=told):
        verify(built.path, progress=Silent())
    built.path.write_bytes(b"another")
    with pytest.raises(ArtifactError, match="is not the engine of its passport") as damaged:
        verify(built.path, progress=Silent())
    command = "tinyres export tiny --format trt --runtime rtx --compute-capability 8.9 --batch 1:4:9"
    assert str(damaged.value.hint).startswith(command)


@pytest.mark.parametrize(("extra", "code"), [([], 4), (["--build-only"], 0)])
def test_the_command_ends_with_4_unless_building_was_all_that_was_asked(
    place: Place, rtx: ModuleType, onnx: Path, extra: list[str], code: int
) -> None:
    place.has(tensorrt_rtx=rtx)
    words = ["export", str(onnx), "--format", "trt", "--batch", "1:4:9", "--compute-capability", "12.0"]
    ended = CliRunner().invoke(app, [*words, *extra])
    assert ended.exit_code == code, ended.stderr
    assert "sm120.unproven.engine: built, not proven on a device" in ended.stdout
    assert "next: on a machine with its GPU, with the files beside it:\n      tinyres verify" in ended.stdout


def test_a_full_disk_leaves_nothing_behind(rtx: ModuleType, onnx: Path, tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"  # a write past this fails as on a full disk
        "from tinyres.cli import main; main()"
    )
    words = ["export", str(onnx), "--format", "trt", "--runtime", "rtx", "--build-only", "--out", str(tmp_path / "out")]
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: cannot write")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_engine_needs_no_pytorch_where_the_onnx_file_is_named(rtx: ModuleType, onnx: Path) -> None:
    program = (
        "import sys; from tinyres.cli import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit as end:\n    print(end.code, sorted({'torch', 'safetensors'} & set(sys.modules)))"
    )
    words = ["export", str(onnx), "--format", "trt", "--runtime", "rtx", "--build-only"]
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "0 []", ended.stderr


# On an acted device: every call that the runner and the builder make exists in the version, and ONNX Runtime answers.


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106"])
def test_with_the_checkpoint_an_engine_is_proven_as_every_export(
    place: Place, trained: TrainedRun, onnx: Path, version: str
) -> None:
    acted(place, version)
    built = build(onnx, source=trained.best, dataset=trained.started.dataset)
    assert built.path.name == f"fp32-trt{version}-sm89.engine"
    assert built.certificate.grade == "full"
    assert built.certificate.backend == "tensorrt"
    assert built.certificate.device == "cuda:0 (Acted GPU)"
    assert [level.name for level in built.certificate.levels] == [
        "file",
        "numeric",
        "decision",
        "accuracy",
        "consistency",
        "entry",
        "backend",
    ]
    file = built.certificate.levels[0].detail
    assert "as fp32" in file
    assert "the inspector shows fp32 in 1 layers" in file
    assert built.path.read_bytes().startswith(ENGINE)  # nothing of ours in the file
    assert read_certificate(built.path).passport == read_passport(built.path)
    assert verify(built.path, progress=Silent()).path == built.path


@pytest.fixture(scope="module")
def int8(drawn: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For TensorRT, proven on part of the pictures."""
    return export_onnx(
        drawn.best,
        tmp_path_factory.mktemp("int8") / "int8-tensorrt.onnx",
        precision="int8",
        int8=Int8Options(target="tensorrt"),
        dataset=drawn.started.dataset,
        batches=(1, 4, 9),
        proof_images=50,
        progress=Silent(),
    ).path


def int8_layers(certificate: Certificate) -> int:
    """Which are float32 depends on the processor's rounding, in a network so small."""
    assert certificate.calibration is not None
    return len(certificate.calibration.layers) - len(certificate.calibration.kept)


def test_an_int8_engine_is_proven_as_its_file_and_opens(place: Place, drawn: TrainedRun, int8: Path) -> None:
    parent = read_certificate(int8)
    layers = int8_layers(parent)
    acted(place, shown="Int8", layers=layers)
    built = build(int8, source=drawn.best, dataset=drawn.started.dataset, proof_images=50)
    assert (parent.grade, built.certificate.grade) == ("sampled", "sampled")
    assert (built.certificate.calibration, built.certificate.limits) == (parent.calibration, parent.limits)
    assert f"the inspector shows int8 in {layers} layers" in built.certificate.levels[0].detail
    assert "--precision int8" in read_passport(built.path).rebuild
    with open_runner(built.path) as runner:
        assert runner(np.zeros((1, 16, 16, 3), np.uint8)).shape == (1, 3)
    assert {level.name for level in verify(built.path, progress=Silent()).levels} >= {"recorded", "entry"}
    assert export_triton(built.path, int8.parent / "triton", progress=Silent()).certificate.grade == "sampled"


def test_an_int8_engine_that_was_widened_or_answers_otherwise_is_set_aside(
    place: Place, drawn: TrainedRun, int8: Path, tmp_path: Path
) -> None:
    for path in int8.parent.glob("int8-tensorrt.onnx*"):
        shutil.copy(path, tmp_path / path.name)
    int8 = tmp_path / int8.name
    layers = int8_layers(read_certificate(int8))
    acted(place, shown="Float", layers=7)
    with pytest.raises(ProofError, match=f"computes 0 layers in int8, and the file has {layers}"):
        build(int8, source=drawn.best, dataset=drawn.started.dataset)
    # Without the checkpoint, what the ONNX file answered at its export is all there is; an even answer is not it.
    acted(place, shown="Int8", layers=layers, spoil=np.zeros_like)
    with pytest.raises(ProofError, match=r"failed the (entry|recorded) level"):
        build(int8)


def test_an_engine_of_a_run_takes_the_onnx_file_that_is_proven_already(
    place: Place, exported: Exported, trained: TrainedRun
) -> None:
    acted(place)
    before = exported.certificate_file.read_bytes()
    ended = CliRunner().invoke(app, ["export", "tiny", "--format", "trt", "--runs", str(trained.runs)])
    assert ended.exit_code == 0, ended.stderr
    assert "proven (full)" in ended.stderr
    assert exported.certificate_file.read_bytes() == before


def test_without_the_checkpoint_it_is_proven_over_the_golden_vectors(place: Place, onnx: Path) -> None:
    acted(place)
    built = build(onnx)
    certificate = built.certificate
    assert certificate.grade == "numeric"
    assert certificate.images.data_kind == "generated"
    assert certificate.images.count == golden.COUNT
    judged = {level.name: level.passed for level in certificate.levels}
    assert judged.pop("accuracy") is None
    assert all(judged.values())
    assert "recorded" in judged


def leaning(logits: np.ndarray) -> np.ndarray:
    return logits * np.float32(1.01)


def leaking(logits: np.ndarray) -> np.ndarray:
    """Each row takes a little of its neighbour, as one published engine did."""
    return logits + np.float32(0.05) * np.roll(logits, 1, axis=0)


@pytest.mark.parametrize("with_checkpoint", [True, False])
@pytest.mark.parametrize("spoil", [leaning, leaking])
def test_an_engine_that_answers_otherwise_is_set_aside(
    place: Place, trained: TrainedRun, onnx: Path, spoil: Any, with_checkpoint: bool
) -> None:
    acted(place, spoil=spoil)
    more = {"source": trained.best, "dataset": trained.started.dataset} if with_checkpoint else {}
    with pytest.raises(ProofError, match="failed the numeric level"):
        build(onnx, **more)
    assert list(onnx.parent.glob("*.engine")) == []
    (folder,) = onnx.parent.glob("*.engine.rejected")
    assert (folder / "reproduce.py").is_file()
    if not with_checkpoint:
        assert prove_rejected(folder / folder.name.removesuffix(".rejected")) == ProofError.exit_code


@pytest.mark.parametrize("shown", ["Half", "Int8"])
def test_an_engine_whose_inspector_shows_another_precision_is_none(place: Place, onnx: Path, shown: str) -> None:
    acted(place, shown=shown)
    with pytest.raises(ProofError, match=f"failed the file level: the engine computes conv1 in {shown.lower()}, not"):
        build(onnx)
    (folder,) = onnx.parent.glob("fp32-trt*")
    assert folder.name.endswith(".engine.rejected")


def test_a_weaker_proof_is_not_reused_for_a_stronger_one(place: Place, trained: TrainedRun, onnx: Path) -> None:
    acted(place)
    assert build(onnx).certificate.grade == "numeric"
    again = build(onnx, source=trained.best, dataset=trained.started.dataset)
    assert again.certificate.grade == "full"
    assert build(onnx) == again  # which proves more than would be proven now
    dataset = trained.started.dataset
    fewer = build(onnx, source=trained.best, dataset=dataset, options=replace(PLAIN, batches=(1, 2, 3)), proof_images=3)
    assert fewer.certificate.images.count == 3
    more = build(onnx, source=trained.best, dataset=dataset, options=replace(PLAIN, batches=(1, 2, 3)))
    assert more.certificate.images.count == 15


def test_another_driver_builds_again(place: Place, onnx: Path) -> None:
    acted(place)
    before = build(onnx).certificate
    device = Cuda(driver=13010)
    place.has(device, tensorrt=library("10.16.1.11", cuda=device))
    after = build(onnx).certificate
    assert before.passport is not None
    assert after.passport is not None
    assert (before.passport.driver, after.passport.driver) == ("13.0", "13.1")


def test_verify_on_a_device_proves_an_engine_from_elsewhere_and_names_it(
    place: Place, rtx: ModuleType, onnx: Path
) -> None:
    place.has(tensorrt_rtx=rtx)
    built = build(onnx)
    with pytest.raises(BackendUnavailable, match="no NVIDIA driver"):
        verify(built.path, progress=Silent())
    assert built.path.is_file()
    place.has(device := Cuda(), tensorrt_rtx=rtx_on(rtx, device, onnx.read_bytes()))
    verified = verify(built.path, progress=Silent())
    assert verified.path == built.path.with_name(f"fp32-rtx{rtx.__version__}-sm89.engine")
    assert read_certificate(verified.path).grade == "numeric"
    assert golden.golden_path(verified.path).is_file()
    assert not built.path.exists()
    assert not certificate_path(built.path).exists()
    assert verify(verified.path, progress=Silent()).path == verified.path


def test_what_rtx_compiled_is_kept_for_the_next_process(place: Place, rtx: ModuleType, onnx: Path) -> None:
    device = Cuda(capability=(8, 6))
    place.has(device, tensorrt_rtx=rtx_on(rtx, device, onnx.read_bytes()))
    built = build(onnx)
    assert built.path.name == f"fp32-rtx{rtx.__version__}-sm86.engine"
    kept = cache_root() / "engines" / f"{built.certificate.artifact_sha256}.rtx"
    compiled = kept.read_bytes()
    assert int(compiled) > 1
    changed = kept.stat().st_mtime_ns
    assert verify(built.path, progress=Silent()).path == built.path
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == (compiled, changed)


# Which library, for which GPU.


def names(destination: engine.Destination) -> tuple[str, str, bool]:
    return destination.library.name, destination.compute_capability, destination.device is not None


def test_the_destination_follows_what_is_here(place: Place, rtx: ModuleType) -> None:
    tensorrt = library("11.4.0.106")
    place.has(Cuda(capability=(9, 0)), tensorrt=tensorrt, tensorrt_rtx=rtx)
    assert names(choose_destination("auto", None)) == ("tensorrt", "9.0", True)
    assert names(choose_destination("auto", "8.9")) == ("tensorrt-rtx", "8.9", False)
    assert names(choose_destination("rtx", None)) == ("tensorrt-rtx", "8.9", False)  # Hopper is none of RTX's
    assert "9.0" in choose_destination("rtx", None).absent
    with pytest.raises(UsageError, match=r"builds for the GPU at hand \(9\.0\) alone"):
        choose_destination("trt", "8.9")
    place.has(Cuda(capability=(12, 0)), tensorrt_rtx=rtx)
    assert names(choose_destination("auto", None)) == ("tensorrt-rtx", "12.0", True)
    place.has(tensorrt=tensorrt, tensorrt_rtx=rtx)
    assert names(choose_destination("auto", None)) == ("tensorrt-rtx", "8.9", False)
    with pytest.raises(BackendUnavailable, match="builds on the GPU that will run the engine, and there is no NVIDIA"):
        choose_destination("trt", None)


def test_what_is_missing_is_named_with_the_command(place: Place) -> None:
    place.has()
    with pytest.raises(BackendUnavailable, match="neither tensorrt nor tensorrt-rtx") as caught:
        choose_destination("auto", None)
    assert "pip install 'tinyres[rtx]'" in str(caught.value.hint)
    place.has(tensorrt=library("10.3.0"))
    with pytest.raises(BackendUnavailable, match="builds where the engine runs, and there is no NVIDIA driver"):
        choose_destination("auto", None)


@pytest.mark.parametrize(("runtime", "extra"), [("auto", "trt"), ("rtx", "rtx")])
def test_without_the_onnx_package_the_extra_of_engines_is_named(
    runtime: str, extra: str, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    ended = CliRunner().invoke(app, ["export", str(onnx), "--format", "trt", "--runtime", runtime])
    assert ended.exit_code == 4
    assert "building an engine needs the package onnx, which is not installed" in ended.stderr
    assert f"pip install 'tinyres[{extra}]'" in ended.stderr


def test_a_library_that_does_not_load_gives_way_to_the_other(place: Place, rtx: ModuleType) -> None:
    place.has(Cuda(capability=(8, 9)), tensorrt_rtx=rtx)
    place.monkeypatch.setattr(tensorrt_library, "installed", lambda: ["tensorrt", "tensorrt-rtx"])
    assert names(choose_destination("auto", None)) == ("tensorrt-rtx", "8.9", True)


def test_the_command_refuses_what_no_engine_is_built_of(place: Place, rtx: ModuleType, onnx: Path) -> None:
    place.has(tensorrt_rtx=rtx)

    def ends(*words: str) -> tuple[int, str]:
        ended = CliRunner().invoke(app, ["export", *words])
        return ended.exit_code, ended.stderr

    onnx.with_name("none.onnx").write_bytes(b"no onnx")
    code, said = ends(str(onnx.with_name("none.onnx")), "--format", "trt")
    assert code == 2
    assert "none.onnx has no certificate" in said
    code, said = ends(str(onnx), "--format", "trt", "--batch", "4:8:16")
    assert (code, "could not classify one picture" in said) == (2, True)
    code, said = ends(str(onnx))
    assert (code, "is an ONNX file already" in said) == (2, True)
    certificate = json.loads(certificate_path(onnx).read_text())
    certificate_path(onnx).write_text(json.dumps(certificate | {"artifact_sha256": "0" * 64}))
    code, said = ends(str(onnx), "--format", "trt")
    assert (code, "belongs to another file" in said) == (3, True)
    assert list(onnx.parent.glob("*.engine")) == []
