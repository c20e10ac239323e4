"""What Tab offers, asked as the shells ask: through Typer's variables, and by bash itself where it is installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tinyres.cli import app, completing
from tinyres.export.example import EXAMPLES
from tinyres.recipes import RECIPES
from tinyres.runtime.backends import BACKENDS


def asked(typed: str, by: str = "bash") -> list[str]:
    """What is offered for the last word of `typed`, which may be empty, as the shell `by` asks."""
    cursor = len(typed.split(" ")) - 1
    variables = {"_TINYRES_COMPLETE": f"complete_{by}", "COMP_WORDS": typed, "COMP_CWORD": str(cursor)}
    done = CliRunner().invoke(app, [], env={**variables, "_TYPER_COMPLETE_ARGS": typed}, prog_name="tinyres")
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("mine-1", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").touch()
    (tmp_path / "runs" / "no-run").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tinyres ex", ["export"]),
        ("tinyres data ", ["prepare", "stats"]),
        ("tinyres eval ", ["mine-1", "other", "nano"]),
        ("tinyres eval m", ["mine-1"]),
        ("tinyres eval runs/o", []),  # then the shell completes files
        ("tinyres eval --runs elsewhere ", ["nano"]),
        ("tinyres diff mine-1 n", ["nano"]),
        ("tinyres predict cat.jpg --model ", ["mine-1", "other", "nano"]),
        ("tinyres predict ", []),
        ("tinyres train --resume ", ["mine-1", "other"]),
        ("tinyres train --init n", ["nano"]),
        ("tinyres train --recipe ", list(RECIPES)),
        ("tinyres train --split ", ["val", "holdout"]),
        ("tinyres train --data s", ["shapes"]),
        ("tinyres plot mine-1 ", ["mine-1", "other", "nano"]),
        ("tinyres plot --by ", ["epochs", "minutes"]),
        ("tinyres export --format ", ["onnx", "trt", "triton"]),
        ("tinyres export --precision ", ["fp32", "fp16", "bf16", "int8"]),
        ("tinyres export --target ", ["cpu", "cuda", "tensorrt"]),
        ("tinyres export --runtime ", ["auto", "trt", "rtx"]),
        ("tinyres export --example ", list(EXAMPLES)),
        ("tinyres verify fp32.onnx --backend ", list(BACKENDS)),
        ("tinyres bench --backends onnxruntime-c", ["onnxruntime-cpu", "onnxruntime-cuda"]),
        ("tinyres bench --backends openvino,o", [f"openvino,{name}" for name in BACKENDS if name[:4] == "onnx"]),
    ],
)
@pytest.mark.usefixtures("two_runs")
def test_values_are_offered(typed: str, offered: list[str]) -> None:
    assert asked(typed) == offered


@pytest.mark.usefixtures("two_runs")
def test_zsh_is_offered_the_same_and_files_where_there_is_nothing() -> None:
    assert "".join(asked("tinyres eval ", by="zsh")) == """_arguments'*::(("mine-1""other""nano"))'"""
    assert asked("tinyres eval runs/o", by="zsh") == ["_files"]


def test_bash_itself_offers_them(two_runs: Path) -> None:
    bash, command = shutil.which("bash"), Path(sys.executable).with_name("tinyres")
    if bash is None or not command.is_file():
        pytest.skip("bash, or the installed command beside this Python, is not here")
    script = (
        f'PATH={shlex.quote(str(command.parent))}:$PATH; eval "$(_TINYRES_COMPLETE=source_bash tinyres)"; '
        'COMP_WORDS=(tinyres eval m); COMP_CWORD=2; _tinyres_completion tinyres; echo "${COMPREPLY[*]}"'
    )
    ended = subprocess.run([bash, "--norc", "-c", script], cwd=two_runs, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("mine-1\n", "")


def test_broken_folders_offer_nothing_and_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("no folder")
    assert asked("tinyres eval ") == ["nano"]
    assert asked("tinyres train --resume ") == []
    assert asked(f"tinyres eval --runs {'x' * 5000} ") == ["nano"]


def test_a_key_press_loads_nothing_heavy() -> None:
    heavy = "print(*({'numpy', 'torch', 'PIL', 'onnx', 'onnxruntime'} & set(sys.modules)), 'rest')"
    program = (
        f"import sys\nfrom tinyres.cli import app\ntry:\n    app(prog_name='tinyres')\nexcept SystemExit:\n    {heavy}"
    )
    variables = {"_TINYRES_COMPLETE": "complete_bash", "COMP_WORDS": "tinyres bench --backends op", "COMP_CWORD": "3"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert ended.stdout.split() == ["openvino", "rest"]


def test_what_is_offered_is_what_is_taken() -> None:
    assert tuple(BACKENDS) == completing.BACKENDS
    assert completing.EXAMPLES == EXAMPLES
