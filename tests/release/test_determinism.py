"""The same seed, data and machine give the same bits in another process, wherever it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alike import NAME
from elsewhere import REPOSITORY

from tinyres.checkpoint import load_state
from tinyres.files import sha256_of
from tinyres.runs import Run

pytestmark = pytest.mark.slow

TIMES: dict[str, set[str]] = {
    "config.json": {"created"},
    "history.json": {"seconds", "images_per_second"},
    "summary.json": {"train_seconds"},
    "export/fp32.onnx.json": {"created"},
}
"""What may differ in a run's folder: these keys of these files, and the history's again in last.safetensors."""


@dataclass(frozen=True)
class Trained:
    """What one process left."""

    run: Run
    cache: Path

    @property
    def onnx(self) -> Path:
        return self.run.path / "export" / "fp32.onnx"

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.run.path).as_posix() for path in self.run.path.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def runs(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Four trainings with their exports, each in a process and with a cache of its own, side by side."""
    program = Path(__file__).with_name("alike.py")
    waiting = {}
    for name, runs, hash_seed, seed in (
        ("first", "runs", "1", 0),
        ("again", "runs", "1", 0),
        ("elsewhere", "deep/down/in another place", "2", 0),
        ("reseeded", "runs", "1", 1),
    ):
        home = tmp_path_factory.mktemp(name)
        made = Trained(Run(home / runs / NAME), home / "cache")
        changed = {"PYTHONHASHSEED": hash_seed, "TINYRES_CACHE": str(made.cache)}
        changed["PYTHONPATH"] = str(REPOSITORY / "tests")  # the helpers that tests share
        process = subprocess.Popen(
            [sys.executable, program, picture_folder, home / runs, str(seed)],
            cwd=home if name == "elsewhere" else REPOSITORY,
            env={**os.environ, **changed},
            stderr=subprocess.PIPE,
            text=True,
        )
        waiting[name] = process, made
    for process, _ in waiting.values():
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return {name: made for name, (_, made) in waiting.items()}


@pytest.fixture(params=["again", "elsewhere"])
def pair(runs: dict[str, Trained], request: pytest.FixtureRequest) -> tuple[Trained, Trained]:
    return runs["first"], runs[request.param]


def test_every_file_of_a_run_is_the_same_to_the_byte_but_for_its_times(pair: tuple[Trained, Trained]) -> None:
    first, second = pair
    assert first.files() == second.files()
    assert {"best.safetensors", "final.safetensors", "training_history.json", *TIMES} <= set(first.files())
    assert {f"export/fp32.onnx{end}" for end in ("", ".golden.npz", ".golden.json")} <= set(first.files())
    for name in first.files():
        if name in TIMES:
            contents = [json.loads((made.run.path / name).read_text()) for made in pair]
            assert without(contents[0], TIMES[name]) == without(contents[1], TIMES[name]), name
        elif name != "last.safetensors":
            assert (first.run.path / name).read_bytes() == (second.run.path / name).read_bytes(), name


def test_the_state_to_resume_from_is_the_same_bit_for_bit(pair: tuple[Trained, Trained]) -> None:
    states: list[Any] = [load_state(made.run.last) for made in pair]
    for state in states:
        state["history"] = without(state["history"], TIMES["history.json"])
    assert {"model", "average", "optimizer", "step", "sums"} <= set(states[0])
    assert equal(*states)


def test_the_cache_is_the_same_to_the_byte(pair: tuple[Trained, Trained]) -> None:
    arrays = [{path.relative_to(made.cache): path.read_bytes() for path in made.cache.rglob("*.npy")} for made in pair]
    assert len(arrays[0]) >= 4
    assert arrays[0] == arrays[1]


def test_another_seed_gives_another_file(runs: dict[str, Trained]) -> None:
    assert sha256_of(runs["first"].onnx) != sha256_of(runs["reseeded"].onnx)


def test_one_changed_bit_would_be_seen(runs: dict[str, Trained]) -> None:
    state: Any = load_state(runs["first"].run.last)
    other: Any = load_state(runs["first"].run.last)
    assert equal(state, other)
    other["optimizer"]["state"][0]["momentum_buffer"].view(torch.int32).flatten()[0] ^= 1
    assert not equal(state, other)
    epochs = runs["first"].run.history()
    assert len(epochs) == 3
    assert replace(epochs[0], train_loss=0.0) != epochs[0]


def without(content: Any, keys: set[str]) -> Any:
    """A record, or each of a list, without keys that it must have."""
    if isinstance(content, list):
        return [without(entry, keys) for entry in content]
    assert keys <= set(content)
    return {key: value for key, value in content.items() if key not in keys}


def equal(first: Any, second: Any) -> bool:
    """Whether two nests of dicts, lists, tensors and plain values are the same, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)
