"""Pins of constraints.txt that are not the newest for this Python; needs a package index.

It changes nothing. pip downloads what is newer to look at it; newest is what pip would install for this Python.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"


def read_pins() -> list[Requirement]:
    """All of constraints.txt."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def version_of(pin: Requirement) -> str:
    """The one version that a pin allows."""
    (only,) = pin.specifier
    return only.version


def main() -> int:
    """Print a line for each pin that is older; 1 if there are any."""
    pins = {canonicalize_name(pin.name): pin for pin in read_pins() if pin.marker is None or pin.marker.evaluate()}
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--no-deps",
        "--upgrade",
        "--quiet",
        "--report",
        "-",
    ]
    ended = subprocess.run([*install, *pins], stdout=subprocess.PIPE, encoding="utf-8")
    if ended.returncode:
        return ended.returncode
    found = {canonicalize_name(each["metadata"]["name"]): each for each in json.loads(ended.stdout)["install"]}
    newer = {name: each["metadata"]["version"] for name, each in found.items()}
    old = [pin for name, pin in pins.items() if newer.get(name, version_of(pin)) != version_of(pin)]
    for pin in old:
        print(f"{pin.name} {version_of(pin)} -> {newer[canonicalize_name(pin.name)]}")
    print(f"{len(old)} of {len(pins)} pins are not the newest that pip has for Python {sys.version.split()[0]}")
    return bool(old)


if __name__ == "__main__":
    sys.exit(main())
