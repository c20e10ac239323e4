"""Every dependency with the licence that its metadata states, written to docs/licenses.md.

It judges what a package says of itself, not what is in it. It needs the packages that `make embed-test` installs.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "licenses.md"
ELSEWHERE = REPOSITORY / "build" / "embed"
GROUPS = ("base", "cpu", "openvino", "train", "tensorboard", "triton", "rtx", "ray")
"""The extras whose packages are listed, and what every installation has."""
NOT_LISTED = ("gpu", "trt", "trt-cu12")
"""Extras that need an NVIDIA GPU; they are installed nowhere in the tests."""
PERMISSIVE = {
    "0BSD", "Apache 2.0", "Apache Software License", "Apache-2.0", "BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause",
    "3-Clause BSD License", "BSL-1.0", "CC0-1.0", "IJG", "ISC", "ISC License", "MIT", "MIT License", "MIT-CMU",
    "OSI Approved :: Apache Software License", "PSF-2.0", "Public domain", "Python Software Foundation License",
    "ZPL-2.1", "Zlib",
}  # fmt: skip
COPYLEFT = re.compile(r"\b[AL]?GPL|\bMPL|Mozilla|\bEPL|\bCDDL|\bEUPL")
PROPRIETARY = re.compile(r"propriet|nvidia", re.IGNORECASE)
CPP = (
    ("OpenVINO", "Apache-2.0", "backend `openvino`"),
    ("ONNX Runtime", "MIT", "backend `onnxruntime`"),
    ("TensorRT, CUDA runtime", "NVIDIA's own", "backend `tensorrt`"),
    ("libjpeg-turbo", "IJG AND BSD-3-Clause AND Zlib", "JPEG"),
    ("stb_image", "MIT OR Public domain", "PNG"),
    ("nlohmann/json", "MIT", "JSON"),
    ("cpp-httplib", "MIT", "the server"),
)
"""Of embed/cpp, as their own licence files have it: library, licence, what for."""


@dataclass
class Package:
    """Something that tinyres or one of its examples installs."""

    name: str
    version: str
    licence: str
    needed_by: list[str] = field(default_factory=list)

    @property
    def row(self) -> str:
        """In a table."""
        kind = kind_of(self.licence)
        shown = kind if kind == "permissive" else f"**{kind}**"
        return f"| {self.name} | {self.version} | {self.licence} | {shown} | {', '.join(self.needed_by)} |"


def stated_licence(distribution: Distribution) -> str:
    """What the metadata says: License-Expression, else a short License, else the classifiers."""
    metadata = distribution.metadata
    classifiers = [
        text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or [] if text.startswith("License")
    ]
    if expressions := metadata.get_all("License-Expression"):
        return str(expressions[0])
    line = "".join(metadata.get_all("License") or [])
    said = [line] if line and "\n" not in line and len(line) <= 80 else []
    if not said or any(map(PROPRIETARY.search, classifiers)):
        said += [text for text in classifiers if text not in said]
    return "; ".join(said) or "not stated"


def kind_of(licence: str) -> str:
    """permissive, copyleft, proprietary or unclear; of several that hold together the strictest counts."""
    if PROPRIETARY.search(licence):
        return "proprietary"
    ways = [re.split(r" AND |; ", way) for way in licence.strip("()").split(" OR ")]
    if any(all(part.partition(" WITH ")[0].strip() in PERMISSIVE for part in way) for way in ways):
        return "permissive"
    return "copyleft" if COPYLEFT.search(licence) else "unclear"


def installed(*folders: Path) -> dict[str, Distribution]:
    """By name, what lies in this environment's folders or in those given; the first found counts."""
    found: dict[str, Distribution] = {}
    for distribution in distributions(path=[*map(str, folders)] or sys.path):
        found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution)
    return found


def needs(requirements: Iterable[str], there: dict[str, Distribution]) -> set[str]:
    """The names of all that these requirements install here, of what is there."""
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if not applies or name not in there:
            continue
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in there[name].requires or []]
    return {name for name, _ in seen}


def requirements_of(group: str, own: Distribution) -> list[str]:
    """What tinyres asks for, for an extra or for `base`."""
    listed = [Requirement(text) for text in own.requires or []]
    extra = "" if group == "base" else group
    taken = [each for each in listed if (each.marker is None) == (not extra)]
    return [
        f"{each.name}{_extras(each)}" for each in taken if each.marker is None or each.marker.evaluate({"extra": extra})
    ]


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def python_packages(there: dict[str, Distribution]) -> dict[str, Package]:
    """By name, what the groups need of what is there."""
    found: dict[str, Package] = {}
    for group in GROUPS:
        for name in sorted(needs(requirements_of(group, there["tinyres"]), there)):
            distribution = there[name]
            package = Package(distribution.metadata["Name"], distribution.version, stated_licence(distribution))
            found.setdefault(name, package).needed_by.append(group)
    return found


def node_packages() -> Iterator[Package]:
    """What npm installed for the examples in JavaScript, nested or not."""
    for example in ("browser", "node"):
        folder = ELSEWHERE / example / "node_modules"
        for path in sorted(folder.rglob("package.json")):
            if path.parent.parent.name == "node_modules" or path.parent.parent.parent.name == "node_modules":
                about = json.loads(path.read_bytes())
                if "name" in about and path.parent.as_posix().endswith(f"node_modules/{about['name']}"):
                    licence = str(about.get("license", "not stated")).strip("()")
                    yield Package(about["name"], about["version"], licence, [example])


def main() -> None:
    """Write the page."""
    there = installed()
    beside = list((ELSEWHERE / "ray").glob("lib/python*/site-packages"))
    node = list(node_packages())
    if not beside or {package.needed_by[0] for package in node} != {"browser", "node"}:
        raise SystemExit("the examples' packages are not under build/embed\nhint: make embed-test")
    there = installed(*beside) | there
    python = sorted(python_packages(there).values(), key=lambda package: package.name.lower())
    merged: dict[tuple[str, str], Package] = {}
    for package in node:
        needed_by = merged.setdefault((package.name, package.version), package).needed_by
        needed_by += [each for each in package.needed_by if each not in needed_by]
    PAGE.write_text(page(python, list(merged.values())), encoding="utf-8", newline="\n")
    print(f"{PAGE.relative_to(REPOSITORY)}: {len(python)} of Python, {len(merged)} of npm, {len(CPP)} of C++")


def page(python: list[Package], node: list[Package]) -> str:
    """The text of docs/licenses.md."""
    by_kind = {
        kind: [each.name for each in python if kind_of(each.licence) == kind] for kind in ("copyleft", "unclear")
    }
    cpp = [Package(name, "", licence, [use]) for name, licence, use in CPP]
    head = "| package | version | licence | kind | for |\n| --- | --- | --- | --- | --- |"
    return f"""# Licences of what tinyres installs

tinyres itself is under the MIT licence. Below is every package that `pip install tinyres` (`base`) and its extras
bring, direct or not, on Linux x86-64, with the licence that its own metadata states. `python tests/release/licenses.py`
wrote this page; `tests/release/test_licenses.py` holds it against what is installed, and keeps `base` and `cpu`
permissive.

- **proprietary**: NVIDIA's packages, under NVIDIA's licence agreements. `train` installs them on Linux because PyTorch
  does (PyTorch's own builds for CPUs do not), `rtx` is TensorRT for RTX. What serves with `base`, `cpu` or `openvino`
  installs none. {", ".join(f"`{name}`" for name in NOT_LISTED)} are not listed: they install NVIDIA's packages too.
- **copyleft**: {", ".join(by_kind["copyleft"]) or "none"}. Installed as it is, beside your code, not built into it.
- **unclear**: {", ".join(by_kind["unclear"]) or "none"}: the metadata says nothing, or nothing definite.
  `cuda-toolkit` holds no file: it only names NVIDIA's packages.
- Metadata speaks of a package's own code. A wheel may bundle more, which its licence files name: NumPy's for Linux has
  GCC's Fortran runtime (GPL-3.0 with the GCC exception) and libquadmath (LGPL-2.1), ONNX Runtime's has Eigen (MPL-2.0).
  Who passes wheels on, say in a container image, passes those on as well.

## Python

{head}
{chr(10).join(package.row for package in python)}

## JavaScript: `embed/node`, `embed/browser`

As npm resolved them on Linux x86-64. `sharp` brings libvips, which is under the LGPL, as a shared library of its own.

{head}
{chr(10).join(package.row for package in sorted(node, key=lambda package: package.name))}

## C++: `embed/cpp`

From Debian's packages or the makers' releases, in the version that is there.

{head}
{chr(10).join(package.row for package in cpp)}
"""


if __name__ == "__main__":
    main()
