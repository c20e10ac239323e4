from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tinyres.cli import app
from tinyres.errors import ArtifactError, BackendUnavailable, ProofError
from tinyres.export import golden
from tinyres.export.artifact import Exported
from tinyres.export.certificate import certificate_path, read_certificate
from tinyres.export.limits import FP32
from tinyres.export.verify import verify
from tinyres.files import sha256_of
from tinyres.progress import Silent


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Path:
    """The artifact with all that lies beside it, somewhere else."""
    for path in exported.path.parent.glob("fp32.onnx*"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / "fp32.onnx"


def test_an_artifact_is_proven_again_from_what_lies_beside_it(copied: Path) -> None:
    verified = verify(copied, progress=Silent())
    assert [level.name for level in verified.levels] == [
        "numeric",
        "decision",
        "consistency",
        "entry",
        "backend",
        "recorded",
    ]
    assert all(level.passed for level in verified.levels)


def test_verify_needs_neither_torch_nor_onnx(copied: Path) -> None:
    program = (
        "import sys; from tinyres.cli import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit as end:\n    print(end.code, sorted({'torch', 'onnx', 'safetensors'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "verify", str(copied)], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "0 []", ended.stderr


def rehashed(artifact: Path) -> None:
    """Make the certificate name the changed file, as a forger would."""
    path = certificate_path(artifact)
    text = path.read_text()
    certificate_hash = text.split('"artifact_sha256": "')[1][:64]
    path.write_text(text.replace(certificate_hash, sha256_of(artifact)))


def test_a_changed_file_is_noticed_by_its_hash_and_by_its_answers(copied: Path) -> None:
    model = onnx.load(copied)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.01), "fc.weight"))
    onnx.save(model, copied)
    with pytest.raises(ProofError, match="belongs to another file"):
        verify(copied, progress=Silent())
    rehashed(copied)
    with pytest.raises(ProofError, match="failed the numeric level here"):
        verify(copied, progress=Silent())


def test_golden_vectors_of_another_export_are_noticed(copied: Path, exported: Exported) -> None:
    vectors = golden.read_golden(copied, read_spec(copied))
    other = golden.GoldenVectors(vectors.pictures, vectors.exact + 1, vectors.checkpoint, vectors.artifact)
    golden.write_golden(copied, other, read_spec(copied), FP32)
    with pytest.raises(ProofError, match="are not those of its certificate"):
        verify(copied, progress=Silent())
    assert exported.certificate.golden_sha256 == golden.fingerprint(exported.path)


def read_spec(artifact: Path) -> object:
    from tinyres.runtime import open_runner

    with open_runner(artifact) as runner:
        return runner.spec


def test_a_certificate_without_its_artifact_is_named(copied: Path) -> None:
    copied.unlink()
    with pytest.raises(ArtifactError, match="there is no artifact"):
        verify(copied, progress=Silent())


def test_an_artifact_without_certificate_or_vectors_cannot_be_verified(copied: Path) -> None:
    golden.golden_path(copied).unlink()
    with pytest.raises(ArtifactError, match="has no golden vectors"):
        verify(copied, progress=Silent())
    certificate_path(copied).unlink()
    with pytest.raises(ArtifactError, match="has no certificate"):
        verify(copied, progress=Silent())


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_backend_that_falls_back_is_a_backend_failure(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyres.runtime import onnxruntime_cpu

    monkeypatch.setattr(onnxruntime_cpu, "PROVIDER", "CUDAExecutionProvider")
    with pytest.raises(BackendUnavailable, match="asked for CUDAExecutionProvider, got"):
        verify(copied, progress=Silent())


def test_the_command_prints_the_levels_and_ends_with_their_code(copied: Path) -> None:
    good = CliRunner().invoke(app, ["verify", str(copied)])
    assert good.exit_code == 0
    assert "numeric" in good.stdout
    copied.write_bytes(copied.read_bytes() + b"\0")
    bad = CliRunner().invoke(app, ["verify", str(copied)])
    assert (bad.exit_code, bad.stdout) == (3, "")
    assert "belongs to another file" in bad.stderr


def test_limits_are_recorded_with_the_result(exported: Exported) -> None:
    certificate = read_certificate(exported.path)
    assert certificate.limits.agreement == 1.0
    assert certificate.limits.numeric_floors == 20


def test_a_folder_in_place_of_an_artifact_names_those_that_it_holds(exported: Exported, tmp_path: Path) -> None:
    file = tmp_path / "made" / "fp32.onnx"
    file.parent.mkdir()
    file.write_bytes(exported.path.read_bytes())
    with pytest.raises(ArtifactError, match="there is no artifact") as caught:
        verify(file.parent, progress=Silent())
    assert caught.value.hint == f"it holds {file}"
