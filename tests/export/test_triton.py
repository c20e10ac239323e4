"""The model repository: by Triton's own schema, and through its own clients."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import TrainedRun, write_pictures
from typer.testing import CliRunner

from tinyres.cli import app
from tinyres.errors import ProofError, UsageError
from tinyres.export import triton
from tinyres.export.artifact import Exported
from tinyres.export.certificate import certificate_path, read_certificate
from tinyres.export.triton import GOOD, Throughput, config_text, export_triton, measure_throughput
from tinyres.files import sha256_of
from tinyres.progress import Silent
from tinyres.runtime.classifier import Classifier
from tinyres.runtime.fake import FakeBackend
from tinyres.runtime.runner import Runner
from tinyres.spec import ModelSpec, Preprocess

acted_triton = pytest.importorskip("acted_triton")  # needs tritonclient
Config = acted_triton.model_config_pb2


@pytest.fixture(scope="module")
def folder(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_triton(exported.path, tmp_path_factory.mktemp("out") / "triton", progress=Silent()).folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Neither square nor of the model's size."""
    root = tmp_path_factory.mktemp("photo")
    write_pictures(root, classes=1, each=1, size=50)
    (path,) = root.rglob("*.png")
    from PIL import Image

    with Image.open(path) as image:
        image.crop((0, 0, 50, 37)).save(root / "photo.png")
    return root / "photo.png"


def test_the_repository_is_what_triton_expects(folder: Path, exported: Exported) -> None:
    model = folder / "models" / "tiny"
    assert sorted(path.name for path in model.iterdir()) == [
        "1",
        "certificate.json",
        "config.pbtxt",
        "golden.json",
        "labels.txt",
    ]
    assert (model / "1" / "model.onnx").read_bytes() == exported.path.read_bytes()
    assert (model / "certificate.json").read_bytes() == certificate_path(exported.path).read_bytes()
    config = acted_triton.read_config(model)
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 9)
    (image,) = config.input
    assert (image.name, image.data_type, list(image.dims)) == ("image", Config.TYPE_UINT8, [16, 16, 3])
    assert [(output.name, output.data_type, list(output.dims)) for output in config.output] == [
        ("logits", Config.TYPE_FP32, [3]),
        ("probabilities", Config.TYPE_FP32, [3]),
    ]
    preferred = list(config.dynamic_batching.preferred_batch_size)
    assert preferred
    assert all(1 <= size <= 9 for size in preferred)
    assert [warmup.batch_size for warmup in config.model_warmup] == list(dict.fromkeys([1, *preferred]))
    assert config.instance_group[0].kind == Config.ModelInstanceGroup.KIND_AUTO
    assert len((model / "labels.txt").read_text().splitlines()) == 3


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_gets_the_labels_that_python_gets(
    folder: Path, exported: Exported, photo: Path, protocol: str
) -> None:
    serve = acted_triton.serve_http if protocol == "http" else acted_triton.serve_grpc
    flag = ["--grpc"] if protocol == "grpc" else []
    with serve(folder / "models") as host, Classifier(exported.path) as classify:
        words = [sys.executable, str(folder / "client.py"), str(photo), str(photo), "--host", host, *flag]
        ended = subprocess.run(words, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        best = classify(photo).best
    wanted = [str(photo), *(f"  {guess.probability:6.1%}  {guess.name}" for guess in best)]
    assert ended.stdout.splitlines() == wanted * 2


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_proves_the_server(folder: Path, tmp_path: Path, protocol: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "triton"))
    serve = acted_triton.serve_http if protocol == "http" else acted_triton.serve_grpc
    golden = copy / "models" / "tiny" / "golden.json"
    known = json.loads(golden.read_text())

    def verify(host: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(copy / "client.py"), "--verify", "--host", host]
        return subprocess.run([*words, *(["--grpc"] if protocol == "grpc" else [])], capture_output=True, text=True)

    with serve(copy / "models") as host:
        ended = verify(host)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.startswith("proven: 4 golden pictures")
        known["pictures"][3]["artifact_logits"][0] += 1
        golden.write_text(json.dumps(known))
        ended = verify(host)
        assert (ended.returncode, "logits differ by" in ended.stderr) == (3, True)
        known["pictures"][0]["png"] = known["pictures"][1]["png"]
        golden.write_text(json.dumps(known))
        assert "decoded to other pixels" in verify(host).stderr


def test_the_client_names_a_bad_picture_and_answers_the_others(folder: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("not a picture")
    with acted_triton.serve_http(folder / "models") as host:
        words = [sys.executable, str(folder / "client.py"), str(tmp_path / "bad.png"), str(photo), "--host", host]
        ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout.splitlines()[0] == str(photo)
    assert f"error: {tmp_path / 'bad.png'}: cannot identify" in ended.stderr


def has_imagemagick() -> bool:
    try:
        return "ImageMagick" in subprocess.run(["convert", "-version"], capture_output=True, text=True).stdout
    except OSError:
        return False


@pytest.mark.skipif(not (shutil.which("curl") and has_imagemagick()), reason="there is no ImageMagick or no curl")
def test_curl_gets_the_label_that_python_gets(folder: Path, exported: Exported, photo: Path) -> None:
    with acted_triton.serve_http(folder / "models") as host, Classifier(exported.path) as classify:
        words = ["sh", str(folder / "curl.sh"), str(photo), host]
        ended = subprocess.run(words, capture_output=True, text=True)
        best = classify(photo).best[0]
    assert ended.returncode == 0, ended.stderr
    probability, _, label = json.loads(ended.stdout)["outputs"][0]["data"][0].split(":", 2)
    assert label == best.name
    assert float(probability) == pytest.approx(best.probability, abs=0.05)  # ImageMagick resizes a little otherwise


@pytest.mark.parametrize("script", ["serve.sh", "build_plan.sh", "curl.sh"])
def test_the_scripts_are_shell_and_name_one_server(folder: Path, script: str) -> None:
    subprocess.run(["sh", "-n", str(folder / script)], check=True)
    text = (folder / script).read_text()
    assert (triton.SERVER in text) == (script != "curl.sh")
    assert "@" not in text.replace('"$@"', "").replace("--data-binary @-", "")
    assert os.access(folder / script, os.X_OK)


def test_a_plan_built_in_the_container_takes_the_onnx_files_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker` is acted: the script's own part is what it asks for, and the config that it leaves."""
    copy = Path(shutil.copytree(folder, tmp_path / "triton"))
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@" > "$ASKED"; touch models/tiny/1/model.plan\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    subprocess.run(["sh", str(copy / "build_plan.sh")], check=True)
    asked = (tmp_path / "asked").read_text()
    assert "--onnx=/models/tiny/1/model.onnx" in asked
    assert "--noTF32" in asked
    assert "--minShapes=image:1x16x16x3 --optShapes=image:4x16x16x3 --maxShapes=image:9x16x16x3" in asked
    config = acted_triton.read_config(copy / "models" / "tiny")
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert config.instance_group[0].kind == Config.ModelInstanceGroup.KIND_GPU


def test_an_engine_is_served_as_a_plan(exported: Exported) -> None:
    passport = SimpleNamespace(built_for="tensorrt 10.3.0 on Acted GPU")
    certificate = SimpleNamespace(
        passport=passport, artifact="fp32.engine", run="tiny", grade="full", batches=(1, 4, 9)
    )
    with Classifier(exported.path) as classify:
        spec = classify.spec
    text = config_text("m", spec, certificate, Throughput({1: 10.0}, "tensorrt"))  # type: ignore[arg-type]
    config = acted_triton.text_format.Parse(text, Config.ModelConfig())
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert config.instance_group[0].kind == Config.ModelInstanceGroup.KIND_GPU
    assert "tensorrt 10.3.0 on Acted GPU: a server needs the same" in text


def test_a_file_without_its_proof_is_not_served(exported: Exported, tmp_path: Path) -> None:
    for path in exported.path.parent.glob("fp32.onnx*"):
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "fp32.onnx").write_bytes(exported.path.read_bytes() + b"\0")
    with pytest.raises(ProofError):
        export_triton(tmp_path / "fp32.onnx", tmp_path / "triton", progress=Silent())
    assert not (tmp_path / "triton").exists()


def test_engines_of_rtx_are_not_for_triton(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = SimpleNamespace(passport=SimpleNamespace(library="tensorrt-rtx"))
    monkeypatch.setattr(triton, "read_certificate", lambda path: certificate)
    with pytest.raises(UsageError, match="Triton loads engines of tensorrt, not of tensorrt-rtx"):
        export_triton(exported.path, exported.path.parent / "triton", progress=Silent())


def test_other_models_in_the_folder_stay_and_a_foreign_one_of_that_name_is_refused(
    exported: Exported, tmp_path: Path
) -> None:
    other = tmp_path / "triton" / "models" / "other"
    other.mkdir(parents=True)
    (other / "config.pbtxt").write_text("theirs")
    for _ in range(2):
        export_triton(exported.path, tmp_path / "triton", progress=Silent())
    assert sorted(path.name for path in other.parent.iterdir()) == ["other", "tiny"]
    assert (other / "config.pbtxt").read_text() == "theirs"
    (other.parent / "tiny" / "certificate.json").unlink()
    with pytest.raises(UsageError, match="that tinyres did not write"):
        export_triton(exported.path, tmp_path / "triton", progress=Silent())


def test_a_name_that_leads_out_of_the_repository_does_not(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read_certificate(exported.path)
    monkeypatch.setattr(triton, "read_certificate", lambda path: replace(known, run="../.."))
    written = export_triton(exported.path, tmp_path / "triton", progress=Silent())
    assert [path.name for path in (tmp_path / "triton" / "models").iterdir()] == [written.model]
    assert not written.model.startswith(".")


@pytest.mark.parametrize("flag", [[], ["--grpc"]])
def test_without_a_server_the_client_says_so_in_one_line(folder: Path, photo: Path, flag: list[str]) -> None:
    words = [sys.executable, str(folder / "client.py"), str(photo), "--host", "127.0.0.1:1", *flag]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: 127.0.0.1:1: ")
    assert "Traceback" not in ended.stderr


def test_other_batches_than_the_proven_ones_are_refused(exported: Exported, tmp_path: Path) -> None:
    words = ["export", str(exported.path), "--format", "triton", "--out", str(tmp_path), "--batch", "1:2:4"]
    ended = CliRunner().invoke(app, words)
    assert (ended.exit_code, "is proven for batches 1:4:9" in ended.stderr) == (2, True)


def test_a_full_disk_keeps_the_earlier_repository(folder: Path, exported: Exported, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "triton"))
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "from tinyres.cli import main; main()"
    )
    words = ["export", str(exported.path), "--format", "triton", "--out", str(tmp_path)]
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["triton"]
    assert (place / "models" / "tiny" / "config.pbtxt").is_file()


def test_the_command_writes_it_beside_the_artifact_and_says_how_to_serve(
    trained: TrainedRun, exported: Exported, tmp_path: Path
) -> None:
    words = ["export", "tiny", "--format", "triton", "--runs", str(trained.runs), "--out", str(tmp_path)]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0, ended.stderr
    assert "serves tiny from fp32.onnx, proven (full)" in ended.stdout
    served = tmp_path / "triton" / "models" / "tiny" / "1" / "model.onnx"
    assert sha256_of(served) == read_certificate(tmp_path / "fp32.onnx").artifact_sha256
    answer = json.loads(CliRunner().invoke(app, [*words, "--json", "--batch", "1:2:4"]).stdout)
    assert answer["folder"] == str(tmp_path / "triton")
    assert answer["certificate"]["batches"] == [1, 2, 4]  # other ones than before: exported anew


def paced(spec: ModelSpec, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A backend whose batches take what `seconds` says, by a clock that only it moves."""
    clock = [0.0]

    def infer(images: np.ndarray) -> np.ndarray:
        clock[0] += seconds[len(images)]
        return np.zeros((len(images), spec.classes), np.float32)

    monkeypatch.setattr(triton, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    return Runner(FakeBackend(spec, infer))


def test_preferred_sizes_are_those_that_a_larger_one_hardly_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(class_names=("a", "b"), class_ids=("1", "2"), preprocess=Preprocess(image_size=8))
    seconds = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.0301, 16: 0.0602, 32: 0.130, 64: 0.270}
    found = measure_throughput(paced(spec, seconds, monkeypatch), (1, 32, 64), progress=Silent())
    best = 8 / 0.0301
    assert found.images_per_second[8] == pytest.approx(best)
    assert found.preferred == tuple(size for size in found.images_per_second if size / seconds[size] >= GOOD * best)
    assert found.preferred == (8, 16)
    assert list(found.images_per_second) == [1, 2, 4, 8, 16, 32]  # then two doublings had gained nothing


def test_measuring_stops_where_larger_batches_only_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(class_names=("a", "b"), class_ids=("1", "2"), preprocess=Preprocess(image_size=8))
    seconds = {1: 0.010, 2: 0.012, 4: 0.030, 8: 0.080}
    found = measure_throughput(paced(spec, seconds, monkeypatch), (1, 32, 256), progress=Silent())
    assert list(found.images_per_second) == [1, 2, 4, 8]
    assert found.preferred == (2,)
