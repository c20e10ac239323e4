"""What docs/json.md says of every command's JSON is what it writes: each command runs, and each field is described."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import torch
import typer.main
from conftest import REPOSITORY
from seed_network import seed_network
from tiny import TrainedRun, outcome
from typer.testing import CliRunner

from tinyres.cli import app
from tinyres.cli.demo import walk
from tinyres.console import Console
from tinyres.export.artifact import Exported

PAGE = (REPOSITORY / "docs" / "json.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
SIZES = ["blocks=1,1", "widths=8,16", "image_size=16", "batch_size=16", "epochs=1"]
SMALL = [word for size in SIZES for word in ("--set", size)]

Fields = dict[str, tuple[set[str], bool]]
"""By path: the kinds that a value may have, and whether it may be absent."""


def rows(section: str) -> Iterator[tuple[str, str]]:
    table = SECTIONS[section].partition("|---|---|---|\n")[2]
    assert table, f"## {section} has no table"
    for line in table.splitlines():
        if line.startswith("|"):
            path, kinds, _ = (cell.strip() for cell in line.strip("|").split("|"))
            yield path.strip("`"), kinds


def fields(section: str) -> Fields:
    """What a section says; parts that several share are put in where they are named."""
    found: Fields = {}
    for path, text in rows(section):
        kinds, _, optional = text.partition(", ")
        assert optional in ("", "optional")
        names = set(kinds.split(" or "))
        for part in re.findall(r"\[(\w+)\]\(#(\w+)\)", text):
            assert part[1] == part[0].lower()
            names = names - {f"[{part[0]}](#{part[1]})"} | {"object"}
            found |= {f"{path}.{inner}".strip("."): its for inner, its in fields(part[0]).items() if inner}
        found[path] = names, bool(optional)
    found.setdefault("", ({"object"}, False))
    return found


def kinds_of(value: object) -> set[str]:
    names = {bool: {"boolean"}, int: {"integer", "number"}, float: {"number"}, str: {"text"}, type(None): {"null"}}
    return {**names, list: {"list"}, dict: {"object"}}[type(value)] | {"any"}


def misfits(value: object, known: Fields, path: str = "") -> list[str]:
    """Where a value is not as described."""
    if path not in known:
        return [f"{path}: not described"]
    allowed, _ = known[path]
    if not allowed & kinds_of(value):
        return [f"{path}: {value!r} is not {allowed}"]
    if isinstance(value, list) and "any" not in allowed:
        return [line for inner in value for line in misfits(inner, known, f"{path}[]")]
    if not isinstance(value, dict) or "any" in allowed:
        return []
    start = f"{path}." if path else ""
    below = {name[len(start) :] for name in known if name.startswith(start)}
    own = {name for name in below if name and "." not in name and "[" not in name}
    if not own:
        return []  # an object of any content
    missing = {name for name in own - {"*"} if not known[start + name][1]} - value.keys()
    lines = [f"{start}{name}: missing" for name in sorted(missing)]
    for name, inner in value.items():
        lines += misfits(inner, known, start + (name if name in own or "*" not in own else "*"))
    return lines


def answer(cli: CliRunner, *words: object) -> object:
    code, said, log = outcome(cli, *words, "--json")
    assert code == 0, log
    return json.loads(said)


@pytest.fixture
def names(trained: TrainedRun, exported: Exported, picture_folder: Path, tmp_path: Path) -> dict[str, str]:
    torch.save(seed_network().state_dict(), tmp_path / "foreign.pth")
    (tmp_path / "runs").mkdir()
    return {
        "RUN": str(trained.started.run.path),
        "FILE": str(exported.path),
        "DATA": str(picture_folder),
        "PICTURE": str(next((picture_folder / "val" / "ring").iterdir())),
        "SEED": str(tmp_path / "foreign.pth"),
        "RUNS": str(tmp_path / "runs"),
        "OUT": str(tmp_path / "out"),
    }


CALLS = {
    "tinyres train": f"train --data DATA --recipe demo {' '.join(SMALL)} --runs RUNS",
    "tinyres import": "import SEED --runs RUNS",
    "tinyres data prepare": "data prepare --data DATA --image-size 16",
    "tinyres data stats": "data stats --data DATA --image-size 16",
    "tinyres export": "export RUN --batch 1:4:9 --out OUT --example python",
    "tinyres export --format triton": "export FILE --format triton --out OUT",
    "tinyres verify": "verify FILE",
    "tinyres diff": "diff RUN FILE --data DATA",
    "tinyres eval": "eval RUN",
    "tinyres predict": "predict PICTURE PICTURE --model FILE",
    "tinyres info": "info RUN",
    "tinyres plot": "plot RUN --out OUT/curves.png",
    "tinyres recipes": "recipes",
    "tinyres doctor": "doctor --runs RUNS",
}
SLOW = {"tinyres train --profile": f"train --data DATA --recipe demo {' '.join(SMALL)} --runs RUNS --profile"}


@pytest.mark.parametrize("section", CALLS)
def test_every_field_of_a_commands_json_is_described(section: str, names: dict[str, str], cli: CliRunner) -> None:
    Path(names["OUT"]).mkdir()
    words = [re.sub("^[A-Z]+", lambda found: names.get(found[0], found[0]), word) for word in CALLS[section].split()]
    assert misfits(answer(cli, *words), fields(section)) == []


@pytest.mark.slow
@pytest.mark.parametrize("section", SLOW)
def test_every_field_of_a_slow_commands_json_is_described(section: str, names: dict[str, str], cli: CliRunner) -> None:
    words = [names.get(word, word) for word in SLOW[section].split()]
    assert misfits(answer(cli, *words), fields(section)) == []


@pytest.mark.slow
def test_the_benchs_json_fits_its_schema(names: dict[str, str], cli: CliRunner) -> None:
    schema = json.loads((REPOSITORY / "docs" / "bench-schema.json").read_text(encoding="utf-8"))
    words = ["--quick", "--batch", 1, "--threads", 1, "--backends", "onnxruntime-cpu", "--out", names["OUT"]]
    jsonschema.Draft202012Validator(schema).validate(answer(cli, "bench", names["FILE"], *words))


def test_the_demos_json_is_described(trained: TrainedRun, capsys: pytest.CaptureFixture[str]) -> None:
    out = Console(json=True)
    assert walk(out, trained.started.run.path, {"a step": lambda: out.result({}, "done")}) == 0
    assert misfits(json.loads(capsys.readouterr().out), fields("tinyres demo")) == []


def test_a_picture_that_cannot_be_read_is_described(names: dict[str, str], cli: CliRunner) -> None:
    words = ["predict", names["PICTURE"], names["SEED"], "--model", names["FILE"]]
    code, said, log = outcome(cli, *words, "--json")
    assert code == 2
    assert misfits(json.loads(said), fields("tinyres predict")) == []
    assert misfits(json.loads(log.splitlines()[-1]), fields("Errors")) == []
    _, lines, _ = outcome(cli, *words, "--jsonl")
    assert misfits([json.loads(line) for line in lines.splitlines()], fields("tinyres predict")) == []


@pytest.mark.parametrize(
    "words", [["trian"], ["info", "nothing"], ["predict", "--top", "0"], ["train", "--data", "no"]]
)
def test_every_error_is_described(words: list[str], cli: CliRunner) -> None:
    code, said, log = outcome(cli, *words, "--json")
    told = json.loads(log.splitlines()[-1])
    assert (said, told["exit_code"]) == ("", code)
    assert misfits(told, fields("Errors")) == []


def test_every_command_has_its_section() -> None:
    root = typer.main.get_command(app)
    known = {f"tinyres {name}" for name in root.commands if name != "data"}  # type: ignore[attr-defined]
    known |= {f"tinyres data {name}" for name in root.commands["data"].commands}  # type: ignore[attr-defined]
    assert {section for section in SECTIONS if section.startswith("tinyres ") and " --" not in section} == known
    assert CALLS.keys() | {"tinyres bench", "tinyres demo"} >= known


@pytest.mark.parametrize(
    ("value", "misfit"),
    [
        ({"run": "a", "path": "b"}, ["classes: missing"]),
        ({"run": "a", "path": "b", "classes": "3"}, ["classes: '3' is not {'integer'}"]),
        ({"run": "a", "path": "b", "classes": 3, "more": 1}, ["more: not described"]),
        ([], [": [] is not {'object'}"]),
    ],
)
def test_the_comparison_finds_what_does_not_fit(value: object, misfit: list[str]) -> None:
    assert misfits(value, fields("tinyres import")) == misfit
