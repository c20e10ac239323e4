"""docs/licenses.md is what the installed metadata says, and what serves brings no duties with it."""

from __future__ import annotations

import json
import re

import pytest
from conftest import REPOSITORY
from licenses import GROUPS, NOT_LISTED, PAGE, installed, kind_of, needs, python_packages, requirements_of
from packaging.utils import canonicalize_name

SERVING = {
    "Apache-2.0", "Apache 2.0", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License", "0BSD", "CC0-1.0",
    "ISC License", "MIT", "MIT License", "MIT-CMU", "PSF-2.0", "Zlib",
}  # fmt: skip
"""All that `base` and `cpu` may be under; a new one is to be read first."""

Row = tuple[str, str, str, set[str]]


def rows(language: str) -> dict[str, Row]:
    """By canonical name, version, licence, kind and users of each row in a language's table."""
    table = PAGE.read_text(encoding="utf-8").partition(f"## {language}")[2].partition("\n## ")[0]
    found = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    return {
        canonicalize_name(name): (version.strip(), licence, kind.strip("*"), {*users.split(", ")})
        for name, version, licence, kind, users in found
    }


ROWS, NODE, NATIVE = rows("Python"), rows("JavaScript"), rows("C++")
INSTALLED = python_packages(installed())
MEND = "python tests/release/licenses.py writes the page anew"


@pytest.mark.parametrize("name", sorted(INSTALLED))
def test_a_package_is_listed_with_the_licence_that_it_states(name: str) -> None:
    assert name in ROWS, MEND
    _, licence, kind, users = ROWS[name]
    assert licence == INSTALLED[name].licence, MEND
    assert kind == kind_of(licence)
    assert users >= {*INSTALLED[name].needed_by}, MEND


def test_what_serves_is_permissive() -> None:
    serving = [package for package in INSTALLED.values() if {"base", "cpu"} & {*package.needed_by}]
    assert {canonicalize_name(package.name) for package in serving} >= {
        "numpy",
        "pillow",
        "onnxruntime",
        "pydantic-core",
    }
    parts = {part for package in serving for part in re.split(r" AND | OR |; ", package.licence)}
    assert parts <= SERVING


def test_only_what_needs_nvidia_brings_what_is_proprietary() -> None:
    users = {name: users for name, (_, _, kind, users) in (ROWS | NODE | NATIVE).items() if kind == "proprietary"}
    assert {user for each in users.values() for user in each} == {"train", "rtx", "backend `tensorrt`"}
    assert {name for name in ROWS if name.startswith(("nvidia-", "tensorrt-"))} <= {*users}


def test_every_extra_is_listed_or_said_not_to_be() -> None:
    extras = {*(installed()["tinyres"].metadata.get_all("Provides-Extra") or [])}
    assert {*GROUPS, *NOT_LISTED} - {"base"} == extras - {"all-cpu", "dev"}  # these are others together, and tools
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in NOT_LISTED)
    assert {user for _, _, _, users in ROWS.values() for user in users} >= {*GROUPS}


@pytest.mark.parametrize("example", ["browser", "node"])
def test_what_an_example_in_javascript_asks_for_is_listed_in_its_version(example: str) -> None:
    asked = json.loads((REPOSITORY / "embed" / example / "package.json").read_bytes())["dependencies"]
    assert asked
    for name, version in asked.items():
        assert NODE[canonicalize_name(name)][0] == version, MEND
        assert example in NODE[canonicalize_name(name)][3]


def test_what_the_example_in_cpp_looks_for_is_listed() -> None:
    cmake = (REPOSITORY / "embed" / "cpp" / "CMakeLists.txt").read_text(encoding="utf-8")
    headers = {name.lower() for name in re.findall(r"^need_header\((\w+)_INCLUDE", cmake, re.MULTILINE)}
    backends = {*re.findall(r"BACKEND STREQUAL \"(\w+)\"", cmake)}
    assert headers == {"stb", "json", "httplib", "turbojpeg"}
    assert backends == {"openvino", "onnxruntime", "tensorrt"}
    listed = re.sub(r"[^a-z,]", "", ",".join(NATIVE))
    assert all(word.removesuffix("jpeg") in listed for word in headers | backends)


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("BSD-3-Clause AND Zlib", "permissive"),
        ("Apache-2.0 WITH LLVM-exception", "permissive"),
        ("(MIT OR GPL-3.0-only)", "permissive"),  # one may choose
        ("MIT AND GPL-3.0-only", "copyleft"),
        ("GPL-2.0-only OR LGPL-3.0-or-later", "copyleft"),
        ("LGPL-3.0-or-later", "copyleft"),
        ("GNU Affero General Public License v3 AGPL", "copyleft"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "copyleft"),
        ("Apache 2.0; Other/Proprietary License", "proprietary"),
        ("LicenseRef-NVIDIA-Proprietary", "proprietary"),
        ("not stated", "unclear"),
        ("Some licence of our own", "unclear"),
        ("MIT AND Some licence of our own", "unclear"),
    ],
)
def test_a_licence_is_of_the_strictest_kind_that_holds(licence: str, kind: str) -> None:
    assert kind_of(licence) == kind


def test_needs_follow_extras_and_markers() -> None:
    there = installed()
    found = needs(["tritonclient[http]; python_version >= '3'", "torch; python_version < '3'"], there)
    assert "geventhttpclient" in found
    assert "torch" not in found
    assert "grpcio" not in found  # of another extra
    assert "onnxruntime" in needs(requirements_of("cpu", there["tinyres"]), there)
    assert "onnxruntime" not in needs(requirements_of("base", there["tinyres"]), there)
