from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from typer.testing import CliRunner

from tinyres.cli import app
from tinyres.errors import ProofError, UsageError
from tinyres.export import example as examples
from tinyres.export.artifact import Exported
from tinyres.export.example import EXAMPLES, write_example


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
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


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


def test_what_a_cpus_onnx_runtime_does_not_compute_gets_none(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "why_not", lambda _: "it is an engine")
    with pytest.raises(UsageError, match="has no example: it is an engine"):
        write_example(copied, "python")


def test_the_command_writes_one_for_a_file_that_is_there(copied: Path, cli: CliRunner) -> None:
    program = copied.with_name("fp32.onnx.py")
    program.unlink()
    ended = cli.invoke(app, ["export", str(copied), "--example", "python", "--json"])
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["example"] == str(program)
    assert run(program, "--verify").returncode == 0


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
