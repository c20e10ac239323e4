"""constraints.txt pins what pyproject.toml names, one version for each Python, within its bounds."""

from __future__ import annotations

import re
import sys

import pytest
from conftest import REPOSITORY
from freshness import read_pins, version_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UNPINNED = {
    "gpu": "needs an NVIDIA GPU with CUDA; nothing here was tested with one version of it",
    "trt": "the same; the engines' passports name the version that made them",
    "trt-cu12": "the same, and its cuda-bindings cannot be those of trt",
}
"""Extras whose packages have no pin, and why."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def named() -> dict[str, list[Requirement]]:
    """By name, what pyproject.toml asks for, but for UNPINNED and tinyres itself."""
    texts = list(PROJECT["dependencies"])
    for extra, wanted in PROJECT["optional-dependencies"].items():
        texts += [] if extra in UNPINNED else wanted
    found: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, texts):
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    del found["tinyres"]
    return found


NAMED = named()


def test_every_dependency_has_a_pin_and_every_pin_is_a_dependency() -> None:
    assert {canonicalize_name(pin.name) for pin in read_pins()} == {*NAMED}


def test_extras_without_pins_are_extras() -> None:
    assert {*UNPINNED} < {*PROJECT["optional-dependencies"]}


def test_every_extra_is_explained_and_none_that_is_not_here() -> None:
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`([\w-]+)`", row)) == sorted(
        PROJECT["optional-dependencies"]
    )


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", NAMED)
def test_one_pin_holds_for_each_python_and_is_within_bounds(name: str, python: str) -> None:
    pins = [pin for pin in read_pins() if canonicalize_name(pin.name) == name]
    held = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    assert len(held) == 1
    assert all(version_of(held[0]) in requirement.specifier for requirement in NAMED[name])


def test_the_pythons_that_are_claimed_are_those_that_are_tested() -> None:
    prefix = "Programming Language :: Python :: 3."
    claimed = [f"3.{text.removeprefix(prefix)}" for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert tuple(claimed) == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_the_licence_is_an_expression_with_its_file_and_no_classifier() -> None:
    assert PROJECT["license"] == "MIT"
    assert all((REPOSITORY / name).read_text(encoding="utf-8").startswith("MIT") for name in PROJECT["license-files"])
    assert not any(text.startswith("License ::") for text in PROJECT["classifiers"])  # as PEP 639 has it
