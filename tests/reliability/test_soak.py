"""The soak at a small size, and that it finds what it is there to find."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resident
import soak
from soak import Window, open_classifier, slope, verdicts

from tinyres import Classifier
from tinyres.export.artifact import Exported
from tinyres.runtime.classifier import Prediction

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/statm").exists(), reason="memory and descriptors are read from Linux's /proc"
    ),
]

STEADY = Window(
    resident_mib=100,
    held_mib=60,
    objects=9000,
    descriptors=9,
    threads=12,
    p50_ms=2,
    p99_ms=9,
    others=0,
    cpu_ms=1,
    seconds=1,
)


def soaked(exported: Exported, folder: Path, opener: Callable[[Path], Classifier]) -> dict[str, Any]:
    found = soak.soak(exported.path, folder, count=400, opened=16, windows=8, opener=opener)
    assert found["requests"] >= 400
    return found


def failed(found: dict[str, Any]) -> set[str]:
    """The verdicts that fail, without those on time: a busy machine is no finding of a test."""
    timed = ("p99", "processor time")
    return {
        name
        for name, verdict in found["verdicts"].items()
        if not verdict["holds"] and not any(word in name for word in timed)
    }


def test_a_classifier_under_load_answers_as_one_thread_does_and_keeps_nothing(
    exported: Exported, tmp_path: Path
) -> None:
    found = soaked(exported, tmp_path, open_classifier)
    assert failed(found) == set()
    assert found["bad_kinds"] >= 10
    assert len(found["verdicts"]) == 15


class Keeping(Classifier):
    """Keeps 100 kB of each picture."""

    kept: list[object]

    def _pixels(self, picture: object) -> Any:
        pixels = super()._pixels(picture)
        self.kept.append(np.zeros(100_000, dtype=np.uint8) + 1)
        return pixels


class Opening(Classifier):
    """Leaves a descriptor open for each picture."""

    kept: list[object]

    def _pixels(self, picture: object) -> Any:
        self.kept.append(os.open(os.devnull, os.O_RDONLY))
        return super()._pixels(picture)


class Mixing(Classifier):
    """Answers every fiftieth request with the answer to the one before."""

    kept: list[object]

    def _classify(self, pixels: Any) -> list[Prediction]:
        answers = super()._classify(pixels)
        self.kept.append(answers)
        return answers if len(self.kept) % 50 else [self.kept[-2][0]] * len(answers)  # type: ignore[index]


def test_a_kept_picture_an_open_descriptor_and_a_mixed_up_answer_are_found(exported: Exported, tmp_path: Path) -> None:
    for kind, found in (
        (Keeping, "memory, MiB more at the end"),
        (Opening, "descriptors more"),
        (Mixing, "answers unlike those of a single thread"),
    ):
        kept: list[Any] = []

        def opener(path: Path, kind: Any = kind, kept: list[Any] = kept) -> Classifier:
            opened: Classifier = kind(path, threads=1)
            opened.kept = kept  # type: ignore[attr-defined]
            return opened

        (tmp_path / kind.__name__).mkdir()
        try:
            assert any(found in name for name in failed(soaked(exported, tmp_path / kind.__name__, opener))), kind
        finally:
            for number in kept:
                if kind is Opening:
                    os.close(number)


@pytest.mark.parametrize(
    ("finding", "change"),
    [
        ("memory, MiB more at the end", lambda at: {"resident_mib": 100 + 2 * at}),
        ("memory, MiB by its slope over the run", lambda at: {"resident_mib": 100 + 2 * at}),
        ("objects more, a window", lambda at: {"objects": 9000 + 400 * at}),
        ("descriptors more", lambda at: {"descriptors": 9 + at // 12}),
        ("threads more", lambda at: {"threads": 12 + at // 12}),
        ("p99, late against early", lambda at: {"p99_ms": 9 + at}),
        ("processor time, late against early", lambda at: {"cpu_ms": 1 + at / 20}),
    ],
)
def test_what_grows_from_window_to_window_fails_its_verdict(
    finding: str, change: Callable[[int], dict[str, Any]]
) -> None:
    judged = verdicts([replace(STEADY, **change(at)) for at in range(20)])
    assert not judged[finding]["holds"]
    assert all(verdict["holds"] for name, verdict in judged.items() if name.partition(",")[0] not in finding)


def test_odd_windows_and_a_busy_machine_are_no_finding() -> None:
    odd: dict[int, dict[str, Any]] = {
        3: {"resident_mib": 180},
        7: {"threads": 20},
        17: {"p99_ms": 90.0},
        18: {"descriptors": 30},
    }
    busy = {at: {"p99_ms": 18.0, "others": 0.5} for at in range(10, 20) if at not in odd}
    judged = verdicts([replace(STEADY, **odd.get(at, busy.get(at, {}))) for at in range(20)])
    assert all(verdict["holds"] for verdict in judged.values())


def test_the_slope_is_the_median_of_all_pairs() -> None:
    assert slope([1, 3, 5, 7]) == 2
    assert slope([0, 1, 2, 300, 4, 5]) == 1


def test_a_process_and_its_child_are_seen_with_their_memory() -> None:
    before = resident.held()
    with mmap.mmap(-1, 30_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:  # new, whatever was freed before
        block[:] = bytes(len(block))
        block[::4096] = b"x" * len(block[::4096])
        assert resident.held() - before > 0.9 * len(block)
    assert os.getpid() in resident.family(os.getppid())
    assert resident.alive(os.getpid())
    counted, worked = resident.processor_s()
    assert 0 < worked <= counted
