from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY
from tiny import TrainedRun
from typer.testing import CliRunner

from tinyres.cli import app
from tinyres.decode import FORMATS
from tinyres.errors import ProofError, UsageError
from tinyres.export.artifact import Exported
from tinyres.export.certificate import certificate_path
from tinyres.export.example import EXAMPLES, write_example
from tinyres.export.verify import verify
from tinyres.files import sha256_of
from tinyres.progress import Silent


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Path:
    for path in exported.path.parent.glob("fp32.onnx*"):
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    return tmp_path / "fp32.onnx"


def run(program: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(program), *map(str, words)], capture_output=True, text=True)


def test_beside_every_artifact_lies_a_program_of_at_most_fifteen_lines(exported: Exported) -> None:
    text = exported.path.with_name("fp32.onnx.py").read_text()
    tree = ast.parse(text)
    imports = {line for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for line in [node.lineno]}
    docstring = tree.body[0]
    lines = text.splitlines()
    code = [line for number, line in enumerate(lines, 1) if number > (docstring.end_lineno or 0)]
    code = [line for line in code if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) - len(imports) <= 15
    assert max(map(len, lines)) <= 120
    assert "@" not in text
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"json", "sys", "numpy", "onnxruntime"}


def test_it_prints_what_predict_prints_and_proves_itself(
    exported: Exported, picture_folder: Path, cli: CliRunner, tmp_path: Path
) -> None:
    from PIL import Image

    pictures = [*sorted((picture_folder / "val" / "ring").iterdir())[:2], tmp_path / "tall.png"]
    noise = np.random.default_rng(0).integers(0, 256, (61, 23, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pictures[-1])
    program = exported.path.with_name("fp32.onnx.py")
    ended = run(program, *pictures)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == cli.invoke(app, ["predict", *map(str, pictures), "--model", str(exported.path)]).stdout
    ended = run(program, "--verify")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "proven\n", "")
    ended = run(program)
    assert ended.returncode == 1
    assert "python fp32.onnx.py PICTURE..., or --verify" in ended.stderr


def test_its_proof_fails_on_other_answers(copied: Path) -> None:
    path = copied.with_name("fp32.onnx.golden.npz")
    with np.load(path) as file:
        arrays = dict(file)
    for spoiled in (arrays["artifact"] + np.float32(0.1), arrays["artifact"] * np.float32(np.nan)):
        np.savez(path, **{**arrays, "artifact": spoiled})
        ended = run(copied.with_name("fp32.onnx.py"), "--verify")
        assert ended.returncode == 1
        assert "these are not the answers of the proof" in ended.stderr


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "python"])
def test_a_folder_has_the_program_the_model_and_its_golden_vectors(copied: Path, name: str) -> None:
    folder = write_example(copied, name)  # type: ignore[arg-type]
    assert folder == copied.parent / name
    listed = subprocess.run(
        ["git", "ls-files", f"embed/{name}"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    program = {Path(path).name for path in listed if not path.endswith(".png")}
    assert {path.name for path in folder.iterdir()} >= program | {"model.onnx", "model.onnx.golden.json"}
    assert (folder / "model.onnx").read_bytes() == copied.read_bytes()
    assert verify(folder / "model.onnx", progress=Silent()).certificate.grade == "full"
    assert write_example(copied, name) == folder  # type: ignore[arg-type]


def test_a_folder_of_someone_elses_is_left_alone(copied: Path) -> None:
    (copied.parent / "node").mkdir()
    (copied.parent / "node" / "mine.mjs").write_text("")
    with pytest.raises(UsageError, match="that tinyres did not write"):
        write_example(copied, "node")
    assert (copied.parent / "node" / "mine.mjs").is_file()


def test_a_file_without_its_proof_gets_none(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes() + b"\0")
    with pytest.raises(ProofError):
        write_example(copied, "python")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"precision": "bf16"}, "no bf16 arithmetic"),
        ({"precision": "int8", "target": "tensorrt"}, "laid out for tensorrt"),
        ({"precision": "int8", "target": "cuda"}, "laid out for cuda"),
    ],
)
def test_what_a_cpus_onnx_runtime_does_not_compute_gets_none(
    copied: Path, changed: dict[str, str], reason: str
) -> None:
    model = onnx.load(copied)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "tinyres")
    entry.value = json.dumps(json.loads(entry.value) | changed)
    onnx.save(model, copied)
    certificate = certificate_path(copied)
    text = certificate.read_text()
    certificate.write_text(text.replace(json.loads(text)["artifact_sha256"], sha256_of(copied)))
    with pytest.raises(UsageError, match=f"has no example: .*{reason}"):
        write_example(copied, "node")


def test_programs_that_a_user_changed_stay_and_the_model_is_renewed(copied: Path) -> None:
    folder = write_example(copied, "node")
    (folder / "classify.mjs").write_text("mine")
    (folder / "node_modules").mkdir()
    (folder / "model.onnx").write_bytes(b"old")
    assert write_example(copied, "node") == folder
    assert (folder / "classify.mjs").read_text() == "mine"
    assert (folder / "node_modules").is_dir()
    assert (folder / "model.onnx").read_bytes() == copied.read_bytes()


def test_its_golden_vectors_are_those_of_the_certificate(copied: Path) -> None:
    beside = copied.with_name("fp32.onnx.golden.json")
    whole = beside.read_text()
    beside.write_text("{}")
    assert (write_example(copied, "node") / "model.onnx.golden.json").read_text() == whole
    vectors = copied.with_name("fp32.onnx.golden.npz")
    with np.load(vectors) as file:
        np.savez(vectors, **dict(file))  # the same arrays, in other bytes
    with pytest.raises(ProofError, match="not those of its certificate"):
        write_example(copied, "node")


def test_out_names_another_place_for_a_folder(copied: Path, tmp_path: Path, cli: CliRunner) -> None:
    ended = cli.invoke(app, ["export", str(copied), "--example", "node", "--out", str(tmp_path / "there"), "--json"])
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["example"] == str(tmp_path / "there" / "node")
    ended = cli.invoke(app, ["export", str(copied), "--example", "python", "--out", str(tmp_path / "there")])
    assert (ended.exit_code, "lies beside fp32.onnx" in ended.stderr) == (2, True)
    ended = cli.invoke(app, ["export", str(copied), "--example", "node", "--batch", "1:2:3"])
    assert (ended.exit_code, "leave --batch out" in ended.stderr) == (2, True)


def test_the_command_writes_one_for_a_file_that_is_there(copied: Path, cli: CliRunner) -> None:
    program = copied.with_name("fp32.onnx.py")
    program.unlink()
    ended = cli.invoke(app, ["export", str(copied), "--example", "python", "--json"])
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["example"] == str(program)
    assert run(program, "--verify").returncode == 0


def test_a_file_that_is_proven_already_is_not_proven_again(
    trained: TrainedRun, exported: Exported, cli: CliRunner
) -> None:
    before = exported.path.stat().st_mtime_ns
    ended = cli.invoke(app, ["export", "tiny", "--runs", str(trained.runs), "--example", "python"])
    assert ended.exit_code == 0, ended.stderr
    assert "fp32.onnx, proven (full)" in ended.stderr
    assert exported.path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--example", "pyhton"], "did you mean 'python'?"),
        (["--example", "node", "--format", "triton"], "--format triton has no examples"),
    ],
)
def test_what_does_not_fit_is_said(copied: Path, cli: CliRunner, words: list[str], reason: str) -> None:
    ended = cli.invoke(app, ["export", str(copied), *words])
    assert ended.exit_code == 2
    assert reason in ended.stderr


def client_without_a_server() -> str:
    """How the client of a model repository reads a picture, as a program of its own."""
    source = (REPOSITORY / "export" / "templates" / "triton" / "client.py").read_text()
    wanted = [
        ast.unparse(node)
        for node in ast.parse(source).body
        if (isinstance(node, (ast.Import, ast.ImportFrom)) and "triton" not in ast.unparse(node))
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FORMATS")
        or (isinstance(node, ast.FunctionDef) and node.name == "pixels")
    ]
    return "\n".join([*wanted, "print(pixels(sys.argv[1], 16).shape)"])


@pytest.mark.parametrize("which", ["python", "triton"])
def test_no_picture_starts_another_program(which: str, copied: Path, picture_folder: Path, tmp_path: Path) -> None:
    program = copied.with_name("fp32.onnx.py")
    if which == "triton":
        program = tmp_path / "client.py"
        program.write_text(client_without_a_server())
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\necho started > '{tmp_path}/started'\n")
    ghostscript.chmod(0o755)
    picture = tmp_path / "photo.png"
    picture.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n")
    env = {**os.environ, "PATH": f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run([sys.executable, str(program), str(picture)], capture_output=True, text=True, env=env)
    assert "cannot identify image file" in ended.stderr
    assert not (tmp_path / "started").exists()
    assert run(program, next((picture_folder / "val" / "ring").iterdir())).returncode == 0


def test_the_programs_read_the_formats_that_tinyres_reads() -> None:
    templates = REPOSITORY / "export" / "templates"
    assert f'"{" ".join(FORMATS)}".split()' in (templates / "python" / "classify.py.in").read_text()
    assert f"FORMATS = ({json.dumps(FORMATS)[1:-1]})" in (templates / "triton" / "client.py").read_text()
