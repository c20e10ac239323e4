"""What README and docs tell a user to type is typed here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import REPOSITORY
from tiny import write_pictures
from typer.testing import CliRunner

from tinyres.cli import app, command

PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += [*sorted((REPOSITORY / "docs").rglob("*.md")), *sorted((REPOSITORY / "embed").glob("**/README.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    started = [words[words.index("-m") + 1 :] if words[:1] == ["torchrun"] else words for words in lines]
    piped = [words[words.index("|") + 1 :] if "|" in words else words for words in started]
    return [words[1:] for words in piped if words[:1] == ["tinyres"]]


def workflow(text: str) -> str:
    """The shell lines of a workflow's steps."""
    return re.sub(r"^ *(?:- )?(?:run: \|?)? *", "", text.replace("\\\n", " "), flags=re.MULTILINE)


ALL = [words for page in PAGES for block in blocks(page, "sh") for words in commands(block)]
ALL += [words for page in PAGES for block in blocks(page, "yaml") for words in commands(workflow(block))]


@pytest.mark.parametrize("words", ALL, ids=[" ".join(words) for words in ALL])
def test_every_command_in_the_docs_is_one(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "run_guarded", lambda _out, _work: 0)  # parse all of it, run none
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_the_readmes_own_pictures_walk_and_its_program_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos" / "train", classes=3, each=20, size=64)
    write_pictures(tmp_path / "photos" / "val", classes=3, each=5, split="val", size=64)
    walk = [words for block in blocks(REPOSITORY / "README.md", "sh") for words in commands(block)]
    walk = [words for words in walk if any("mine" in word for word in words)]
    first = ["train", "eval", "export", "predict", "bench", *["predict"] * 2, "export", "verify", "diff", "info"]
    assert [words[0] for words in walk] == [*first, *["export"] * 4]
    for words in walk:
        result = CliRunner().invoke(app, words, input=Path("photos/val/ring/1.png").read_bytes())
        unproven = "trt" in words and "--build-only" not in words  # where no GPU is, which the README says too
        assert result.exit_code in ({0, 4} if unproven else {0}), (words, result.stderr)
    (program,) = blocks(REPOSITORY / "README.md", "python")
    exec(compile(program, "README.md", "exec"), {})  # noqa: S102 - the page's own program
    assert capsys.readouterr().out.split()[0] in {"circle", "ring", "triangle"}


def test_the_make_targets_in_the_readme_exist() -> None:
    targets = re.findall(r"^make (\S+)", "\n".join(blocks(REPOSITORY / "README.md", "sh")), re.MULTILINE)
    makefile = (REPOSITORY / "Makefile").read_text()
    assert set(targets) == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES])
def test_links_and_named_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_the_sabotage_table_is_that_of_the_tests() -> None:
    source = (REPOSITORY / "tests" / "export" / "test_pipeline.py").read_text(encoding="utf-8")
    table = source.partition("SABOTAGE = {")[2].partition("\n}")[0]
    tested = {
        name: rest for name, *rest in re.findall(r'^    "([^"]+)": \(\w+, "(\w+)", "(.*)"\),$', table, re.MULTILINE)
    }
    page = (REPOSITORY / "docs" / "proof.md").read_text(encoding="utf-8")
    table = page.partition("## What it was tried against")[2]
    shown = {name: rest for name, *rest in re.findall(r"^\| ([^|]+) \| (\w+) \|(?: `(.*)`)? \|$", table, re.MULTILINE)}
    for name in ("a provider that falls back", "no image at all"):  # tests of their own
        assert shown.pop(name)
    assert tested == shown
