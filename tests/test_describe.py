from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TrainedRun

from tinyres.describe import describe
from tinyres.errors import InputError
from tinyres.export.artifact import Exported


def test_every_kind_of_file_says_what_it_is(exported: Exported, trained: TrainedRun) -> None:
    run = trained.started.run
    kinds = {
        run.path: "run",
        run.path / "config.json": "run",
        run.path / "history.json": "training history",
        run.path / "training_history.json": "training history",
        run.path / "env.json": "environment of a run",
        run.path / "state.json": "state of a run",
        exported.path.with_name("fp32.onnx.golden.json"): "golden vectors for other languages",
        run.best: "checkpoint",
        run.last: "training state, to resume from",
        exported.path: "ONNX artifact",
        exported.certificate_file: "certificate",
        exported.path.with_name("fp32.onnx.golden.npz"): "golden vectors (drawn pictures)",
    }
    assert {path: describe(path).kind for path in kinds} == kinds


def test_the_facts_are_the_files_own(exported: Exported, trained: TrainedRun) -> None:
    facts = describe(trained.best).facts
    assert (facts["run"], facts["recipe"], facts["network"]) == ("tiny", "tiny", "blocks 1-1, widths 8-16")
    facts = describe(exported.certificate_file).facts
    assert facts["grade"] == "full"
    assert "NOT PASSED" not in facts["levels"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b""),
        ("a.safetensors", struct.pack("<Q", 2**40)),
        ("a.safetensors", struct.pack("<Q", 10) + b"not json!!"),
        ("a.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("a.onnx", b"text"),
        ("a.json", b"{}"),
        ("a.json", b"no json"),
        ("a.golden.npz", b"PK"),
        ("a.pth", b"x"),
        ("a.txt", b"x"),
    ],
)
def test_what_is_none_of_them_is_an_input_error(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        describe(tmp_path / name)


def test_an_artifact_that_is_not_its_certificates_is_called_not_proven(exported: Exported, tmp_path: Path) -> None:
    assert describe(exported.path).facts["certificate"] == "fp32.onnx.json, grade full, 15 images"
    other = tmp_path / "fp32.onnx"
    other.write_bytes(exported.path.read_bytes())
    assert describe(other).facts["certificate"] == "none: not proven"
    text = exported.certificate_file.read_text().replace(exported.certificate.artifact_sha256, "0" * 64)
    (tmp_path / "fp32.onnx.json").write_text(text)
    assert describe(other).facts["certificate"] == "fp32.onnx.json, of another file: not proven"


def test_places_that_are_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is nothing at"):
        describe(tmp_path / "absent")
    with pytest.raises(InputError, match="neither a run nor a cache"):
        describe(tmp_path)


@given(place=st.integers(0, 5000), value=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_damaged_checkpoint_is_described_or_refused(trained: TrainedRun, place: int, value: int) -> None:
    content = bytearray(trained.best.read_bytes())
    content[place % len(content)] = value
    path = trained.runs / "damaged.safetensors"
    path.write_bytes(bytes(content))
    try:
        assert describe(path).kind in {"checkpoint", "training state, to resume from"}
    except InputError:
        pass
    finally:
        path.unlink()


def test_a_strangers_words_are_cut_and_add_no_line(tmp_path: Path) -> None:
    fields = {"state": "x" * 6_000_000, "epochs": "1\n  grade        full", "message": ""}
    fields |= {"ok\n  grade        full": "\x1b[2J", "k" * 10_000: "y"}
    (tmp_path / "state.json").write_text(json.dumps(fields))
    started = time.process_time()
    described = describe(tmp_path / "state.json")
    text = described.text()
    assert time.process_time() - started < 2
    assert len(text) < 3000
    assert not any(line.startswith("  grade") for line in text.splitlines())
    assert r"ok\n  grade        full \x1b[2J" in text
    assert "x..." in text
    assert len(described.facts["state"]) == 6_000_000
