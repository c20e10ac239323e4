"""Help that teaches: every command has examples that parse, one text for one option, and fits 80 columns."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from conftest import REPOSITORY
from tiny import TrainedRun, outcome
from typer.testing import CliRunner

from tinyres.cli import app, command
from tinyres.cli.teaching import PATH
from tinyres.console import Console, next_lines, shell_line
from tinyres.export.artifact import Exported

NANO = REPOSITORY / "weights" / "nano"
DIFFERENT = {"--batch", "--out", "--images"}
"""Options that mean another thing in each command that has them."""


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, group
    for name, inner in getattr(group, "commands", {}).items():
        yield from commands(inner, *words, name)


ALL = dict(commands(typer.main.get_command(app)))
EXAMPLES = [(words, line) for words, its in ALL.items() for _, line in its.examples]


@pytest.mark.parametrize("words", ALL, ids=[" ".join(words) or "tinyres" for words in ALL])
def test_help_ends_with_examples_to_copy_and_fits_80_columns(words: tuple[str, ...], cli: CliRunner) -> None:
    code, said, _ = outcome(cli, *words, "--help")
    assert code == 0
    assert [line for line in said.splitlines() if len(line) > 80] == []
    examples = said.partition("\n Examples\n")[2].splitlines()
    assert 2 <= len(ALL[words].examples) <= 4
    assert [line.strip() for line in examples[1::2]] == [line for _, line in ALL[words].examples]


@pytest.mark.parametrize(("words", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_is_a_command_that_parses(
    words: tuple[str, ...], line: str, cli: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "run_guarded", lambda _out, _work: 0)  # parse all of it, run none
    name, *rest = shlex.split(line.partition(" < ")[0])
    assert name == "tinyres"
    code, _, log = outcome(cli, *rest)
    assert code == 0, log
    if words and words not in {("recipes",), ("demo",)}:  # these two lead on to others
        assert tuple(rest[: len(words)]) == words


def test_the_roots_help_shows_every_command_on_its_path(cli: CliRunner) -> None:
    listed = [name for names in PATH.values() for name in names]
    assert sorted(listed) == sorted(ALL[()].commands)
    _, said, _ = outcome(cli, "--help")
    panels = [line.split()[1] for line in said.splitlines() if line.startswith("╭─")]
    assert panels == ["Options", *PATH]
    shown = [line.split()[1] for line in said.splitlines() if line[:3] == "│ " + line[2:3] and line[2:3].isalpha()]
    assert shown == listed


def test_an_option_has_one_text_in_every_command() -> None:
    texts = defaultdict(set)
    for its in ALL.values():
        for parameter in its.params:
            if parameter.opts[0].startswith("--"):
                texts[parameter.opts[0]].add(parameter.help)
    several = {option for option, known in texts.items() if len(known) > 1}
    assert several <= {"--data", *DIFFERENT}
    assert len(texts["--data"]) == 2  # of a run, and of a run that is yet to be
    assert all(all(known) for known in texts.values())


CHEAP = ["recipes", "doctor", "info RUN", "info FILE", "info FILE.json", "info NANO", "eval RUN", "verify FILE"]
CHEAP += ["diff RUN FILE", "predict PICTURE --model FILE", "data stats --data DATA --image-size 16"]
CHEAP += ["data prepare --data DATA --image-size 16", "plot RUN --out OUT/curves.png", "info FILE.golden.npz"]


@pytest.mark.parametrize("line", CHEAP)
def test_what_commands_print_fits_80_columns_but_for_paths_and_advises_commands(
    line: str,
    cli: CliRunner,
    trained: TrainedRun,
    exported: Exported,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"RUN": trained.started.run.path, "FILE": exported.path, "NANO": NANO, "DATA": picture_folder}
    names["OUT"] = tmp_path
    names["PICTURE"] = next((picture_folder / "val" / "ring").iterdir())
    words = [next((word.replace(n, str(p)) for n, p in names.items() if n in word), word) for word in line.split()]
    code, said, log = outcome(cli, *words)
    assert code in (0, 1), log
    assert [row for row in said.splitlines() if len(row) > 80 and "/" not in row] == []
    _, next_, steps = (log if "predict" in line else said).rpartition("next: ")  # predict's stdout is its answers alone
    assert next_
    monkeypatch.setattr(command, "run_guarded", lambda _out, _work: 0)  # parse what is advised, run none of it
    for step in steps.splitlines():
        if step != "mend what is marked FIX":
            name, *rest = shlex.split(step)
            assert name == "tinyres"
            assert outcome(cli, *rest)[0] == 0


def test_the_next_step_is_left_out_of_quiet_answers_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    for out in (Console(), Console(quiet=True), Console(json=True)):
        out.result({}, "done", "tinyres eval a", "tinyres bench a")
        out.advise("tinyres export a")
    assert capsys.readouterr() == (
        "done\nnext: tinyres eval a\n      tinyres bench a\ndone\n{}\n",
        "next: tinyres export a\n",
    )


def test_a_step_of_a_larger_command_advises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    out = Console()
    with out.steps():
        out.result({}, "done", "tinyres eval a")
    out.result({}, "all done", "tinyres eval a")
    assert capsys.readouterr().out == "done\nall done\nnext: tinyres eval a\n"


def test_a_name_with_a_space_can_be_pasted() -> None:
    assert shlex.split(shell_line("eval", "my run")) == ["tinyres", "eval", "my run"]
    assert next_lines() == []
