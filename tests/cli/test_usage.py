"""What Typer refuses reads like every other error, and errors are JSON where answers are."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from tinyres.cli import app, usage
from tinyres.cli.command import run_guarded
from tinyres.cli.usage import as_ours
from tinyres.console import Console
from tinyres.errors import UsageError


def test_a_refusal_is_two_lines_and_no_box(cli: CliRunner) -> None:
    done = cli.invoke(app, ["trian"])
    error, hint = done.stderr.splitlines()
    assert (done.exit_code, done.stdout, error) == (2, "", "error: No such command 'trian'")
    assert hint.startswith("hint: did you mean 'train'? valid: train, import, ")


def test_a_command_without_its_subcommand_still_shows_its_help(cli: CliRunner) -> None:
    for arguments in ([], ["data"]):
        done = cli.invoke(app, arguments)
        assert done.exit_code == 2
        assert "Usage: " in done.output
        assert "error: " not in done.output


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["recipes"], 0), (["info", "nothing"], 2)])
def test_exit_codes_of_commands_are_passed_on(arguments: list[str], code: int, cli: CliRunner) -> None:
    assert cli.invoke(app, arguments).exit_code == code


def test_the_last_value_of_an_option_is_the_one_that_is_shown(cli: CliRunner) -> None:
    for arguments in (["--top=3", "--top", "-4"], ["--top", "3", "--top=-4"]):
        done = cli.invoke(app, ["predict", "a.png", *arguments])
        assert done.stderr.startswith("error: --top '-4': ")


def test_debug_shows_where_a_refusal_came_from(cli: CliRunner) -> None:
    done = cli.invoke(app, ["predict", "--top", "0", "--debug"])
    assert done.stderr.startswith("Traceback")
    assert "\nerror: --top '0'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "message", "code"),
    [
        (["trian", "--json"], "UsageError", "No such command 'trian'", 2),
        (["train", "--data", "möve", "--json"], "DataError", "--data möve: there is no such folder or zip", 2),
        (["verify", "none.onnx", "--json"], "ArtifactError", "there is no artifact none.onnx", 2),
    ],
)
def test_with_json_an_error_is_the_last_line_and_json(
    arguments: list[str], kind: str, message: str, code: int, cli: CliRunner
) -> None:
    done = cli.invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    last = done.stderr.splitlines()[-1]
    assert last.isascii()
    told = json.loads(last)
    assert list(told) == ["error", "message", "hint", "exit_code"]
    assert (told["error"], told["message"], told["exit_code"]) == (kind, message, code)
    assert told["hint"]


def test_with_json_defects_and_interruptions_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    def defect() -> None:
        raise KeyError("x")

    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_guarded(Console(json=True), defect) == 1
    assert run_guarded(Console(json=True), interrupted) == 130
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["error"], first["message"]) == ("TinyresError", "KeyError: 'x'")
    assert "defect of tinyres" in first["hint"]
    assert (second["error"], second["exit_code"]) == ("Interrupted", 130)


def test_an_interruption_before_a_command_runs_is_130(monkeypatch: pytest.MonkeyPatch, cli: CliRunner) -> None:
    def aborts(*_: object, **__: object) -> None:
        raise typer.Abort

    monkeypatch.setattr(usage.TyperGroup, "main", aborts)
    done = cli.invoke(app, ["recipes"])
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def test_a_program_may_run_the_app_itself() -> None:
    assert app(["recipes", "--quiet"], standalone_mode=False) == 0
    with pytest.raises(usage.REFUSED, match="No such command"):
        app(["trian"], standalone_mode=False)


def test_the_console_script_says_the_same() -> None:
    ended = subprocess.run([sys.executable, "-m", "tinyres", "exprot"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: No such command 'exprot'\nhint: did you mean 'export'?")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        # As click 8.1 words it, which older versions of Typer use.
        ("No such command 'trian'.", "No such command 'trian'"),
        ("Invalid value for '--top': 0 is not in the range x>=1.", "--top '0': 0 is not in the range x>=1"),
        ("Invalid value for '--top' / '-t': 'x' is no int.", "--top '0': 'x' is no int"),
        ("Something that nobody foresaw", "Something that nobody foresaw"),
    ],
)
def test_messages_of_other_versions_are_read_or_passed_on(said: str, message: str) -> None:
    command = SimpleNamespace(params=[], list_commands=lambda _context: ["train"])
    context = SimpleNamespace(command_path="tinyres predict", command=command)
    refused = SimpleNamespace(ctx=context, param=SimpleNamespace(opts=["--top", "-t"]), format_message=lambda: said)
    error = as_ours(refused, ["predict", "--top", "0"], ["predict"])
    assert (type(error), str(error), error.exit_code) == (UsageError, message, 2)
    assert error.hint
