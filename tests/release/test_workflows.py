"""The workflows run what a contributor runs, and nothing of their own that could drift."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from test_constraints import PYTHONS

FILES = {path.stem: path for path in sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))}
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TARGETS = {*re.findall(r"^([\w-]+)(?: [\w-]+)*:", MAKEFILE, re.MULTILINE)}
PROGRAMS = [
    (target, program)
    for target, lines in re.findall(r"^([\w-]+): \$\(READY\)\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    for program in re.findall(r"python (\S+\.py)", lines)
]
CI = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


def read(name: str) -> dict[Any, Any]:
    return dict(yaml.safe_load(FILES[name].read_text(encoding="utf-8")))


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in read(name)["jobs"].values() for step in job["steps"]]


def test_there_is_a_workflow_for_changes_and_one_for_pins() -> None:
    assert {*FILES} == {"ci", "freshness"}


@pytest.mark.parametrize("name", FILES)
def test_a_workflow_may_only_read_and_ends_by_itself(name: str) -> None:
    found = read(name)
    assert found["permissions"] == {"contents": "read"}
    assert found["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 90 and "permissions" not in job for job in found["jobs"].values())


@pytest.mark.parametrize("name", FILES)
def test_actions_are_githubs_own_with_a_major_version(name: str) -> None:
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert {action.partition("@")[0] for action in used} == {"actions/checkout", "actions/setup-python"}
    assert all(re.fullmatch(r"[\w/-]+@v\d+", action) for action in used)


@pytest.mark.parametrize("name", FILES)
def test_a_step_runs_a_target_or_a_file_that_is_here(name: str) -> None:
    commands = [step["run"] for step in steps(name) if "run" in step]
    assert commands
    for command in commands:
        first, *rest = command.split()
        if first == "make":
            assert {*rest} <= TARGETS, command
        elif first == "python":
            assert (REPOSITORY / rest[0]).is_file(), command
        elif first == "pip":
            assert rest == ["install", "packaging"]  # what freshness.py imports
        else:
            assert os.access(REPOSITORY / first, os.X_OK), command


def test_a_change_is_judged_by_the_same_script_as_anywhere() -> None:
    assert ".ci/run" in [step.get("run") for step in read("ci")["jobs"]["all"]["steps"]]
    called = re.findall(r"^make (\S+)$", CI, re.MULTILINE)
    assert called == ["check", "test", "test-install", "test-triton", "embed-test"]
    assert {*called} <= TARGETS
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"CI runs `make {' '.join(called)}`" in contributing


def test_programs_of_targets_are_found() -> None:
    assert {"tests/release/install.py", "tests/reliability/heavy.py"} <= {program for _, program in PROGRAMS}


@pytest.mark.parametrize(("target", "program"), PROGRAMS)
def test_the_program_of_a_target_finds_what_it_imports(target: str, program: str) -> None:
    """Started as a script it has its own folder to import from, and what the Makefile adds for its target."""
    added = re.search(rf"^(?:[\w-]+ )*{target}(?: [\w-]+)*: export PYTHONPATH := (\S+)$", MAKEFILE, re.MULTILINE)
    start = "import runpy, sys; sys.path[0] = sys.argv[1]; runpy.run_path(sys.argv[2], run_name='imported')"
    ended = subprocess.run(
        [sys.executable, "-c", start, str(Path(program).parent), program],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": added[1] if added else ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_every_python_that_is_claimed_is_there() -> None:
    jobs = read("ci")["jobs"]
    assert tuple(jobs["pythons"]["strategy"]["matrix"]["python"]) == PYTHONS
    (versions,) = [
        step["with"]["python-version"] for step in jobs["all"]["steps"] if "setup-python" in step.get("uses", "")
    ]
    assert {*versions.split()} == {*PYTHONS}


def test_files_that_key_the_caches_are_here() -> None:
    named = [step["with"].get("cache-dependency-path", "") for step in steps("ci") if "with" in step]
    files = {file for text in named for file in text.split()}
    assert files == {"pyproject.toml", "constraints.txt"}
    assert all(Path(REPOSITORY / file).is_file() for file in files)
