"""The many pictures at a small size, and that its verdicts fail on what they are there to find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import heavy
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc"),
]
MEASURED = {"memory for a picture, in all processes, bytes", "listing a picture of many, against one of a tenth"}
"""These need many pictures."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return heavy.measure(6000, tmp_path_factory.mktemp("heavy"), classes=20)


def test_a_killed_build_goes_on_and_every_verdict_holds(found: dict[str, Any]) -> None:
    verdicts = heavy.verdicts(found)
    assert set(verdicts) > MEASURED
    assert {name for name, verdict in verdicts.items() if not verdict["holds"]} <= MEASURED
    assert found["killed"]["children"] >= 1
    assert found["killed"]["at"] < 6000


@pytest.mark.parametrize(
    ("verdict", "part", "change"),
    [
        ("every picture is in its class", "large", {"right": False}),
        ("every picture is in its class", "large", {"counts": {"train": 5000, "val": 999}}),
        ("memory for a picture, in all processes, bytes", "large", {"held_bytes": 2**30}),
        ("listing a picture of many, against one of a tenth", "large", {"listing_s": 1000}),
        ("pictures decoded twice after a kill", "killed", {"decoded_twice": 3001}),
        ("every picture was decoded", "killed", {"decoded": 5999}),
        ("workers left by a killed builder", "killed", {"orphans": 1}),
        ("a killed and resumed build gives the same arrays", "resumed", {"sha256": "0"}),
        ("memory that batches add, MiB", "reading", {"late": 2**40}),
    ],
)
def test_a_fault_fails_its_verdict(found: dict[str, Any], verdict: str, part: str, change: dict[str, Any]) -> None:
    faulty = {**found, part: {**found[part], **change}}
    assert not heavy.verdicts(faulty)[verdict]["holds"]
