"""The weights that ship: what they are, what they are worth on real pictures, and that their certificate is theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import outcome
from typer.testing import CliRunner

from tinyres import weights
from tinyres.checkpoint import load_weights
from tinyres.data import shapes
from tinyres.data.sources import find_source
from tinyres.data.tiny_imagenet import CLASSES
from tinyres.export.certificate import Certificate
from tinyres.export.pipeline import export_onnx
from tinyres.files import sha256_of
from tinyres.progress import Silent
from tinyres.recipes import NANO
from tinyres.records import load
from tinyres.runs import Run
from tinyres.runtime import open_runner
from tinyres.training.launch import find_start
from tinyres.training.summary import Summary

NANO_SHA256 = "861e15d029af99c17aa9017507b81114b2f39cb7970bbebd887672a088e9f01a"
PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
RIGHT_OF_500 = 301
"""Of every twentieth picture of the official validation split."""


@pytest.fixture(scope="module")
def nano() -> Run:
    folder = weights.folder("nano")
    assert folder is not None
    return Run(folder)


@pytest.fixture(scope="module")
def certificate(nano: Run) -> Certificate:
    return load(Certificate, nano.path / "fp32.onnx.json")


def test_each_folder_of_weights_is_a_finished_run_with_a_notice_of_what_it_learned_from() -> None:
    assert weights.names() == ["nano"]
    for name in weights.names():
        run = Run(weights.HERE / name)
        assert (run.state().state, run.config().name) == ("finished", name)
        assert "ImageNet's terms" in " ".join((run.path / "NOTICE.md").read_text().split())


def test_nothing_that_ships_names_a_place_on_the_machine_that_made_it(nano: Run) -> None:
    assert nano.config().data == "tiny-imagenet"
    for path in nano.path.glob("*.json"):
        assert "/" not in path.read_text().replace("images/s", ""), path


def test_the_shipped_weights_are_these_and_small(nano: Run) -> None:
    assert sha256_of(nano.final) == NANO_SHA256
    assert nano.final.stat().st_size <= 6e6


def test_they_are_the_recipes_network_and_the_last_epoch_of_a_whole_training(nano: Run) -> None:
    checkpoint, config = load_weights(nano.final), nano.config()
    assert (checkpoint.spec.blocks, checkpoint.spec.widths) == (NANO.blocks, NANO.widths)
    assert checkpoint.spec == config.spec
    assert config.recipe == NANO
    assert (checkpoint.origin.selected_on, checkpoint.origin.epoch) == ("none", NANO.epochs)
    assert dict(zip(checkpoint.spec.class_ids, checkpoint.spec.class_names, strict=True)) == CLASSES
    assert len(nano.history()) == NANO.epochs


def test_their_certificate_is_over_the_whole_validation_split(nano: Run, certificate: Certificate) -> None:
    assert certificate.checkpoint_sha256 == NANO_SHA256
    assert (certificate.grade, certificate.failed) == ("full", [])
    assert (certificate.images.data_kind, certificate.images.split, certificate.images.count) == (
        "tiny-imagenet",
        "val",
        10_000,
    )
    worth = load(Summary, nano.path / "summary.json").last.accuracy
    (accuracy,) = [level for level in certificate.levels if level.name == "accuracy"]
    # Rounding the weights to half precision may move a few pictures: 0.05 points are five of ten thousand.
    assert accuracy.measured["artifact"] == pytest.approx(worth.top1, abs=0.0005)


def test_another_export_gives_the_file_of_the_certificate(nano: Run, certificate: Certificate, tmp_path: Path) -> None:
    exported = export_onnx(
        nano.final, tmp_path / "fp32.onnx", dataset=None, batches=(1, 4, 9), proof_images=32, progress=Silent()
    )
    assert exported.certificate.artifact_sha256 == certificate.artifact_sha256


@pytest.mark.slow
def test_they_know_real_pictures(nano: Run, real_zip: Path) -> None:
    spec = nano.config().spec
    source = find_source(str(real_zip))
    rows = range(0, 10_000, 20)
    pictures = np.stack([source.pixels("val", row, spec.preprocess) for row in rows])
    with open_runner(nano.final) as runner:
        answers = runner(pictures).argmax(axis=1)
    right = int((answers == source.labels("val")[::20]).sum())
    assert abs(right - RIGHT_OF_500) <= 1  # one picture may be a tie on another processor


@pytest.mark.slow
def test_their_name_works_in_every_command_of_the_path(cli: CliRunner, tmp_path: Path) -> None:
    photo = PICTURES / "coffee.jpg"
    runs = ["--runs", tmp_path / "runs"]
    code, said, log = outcome(cli, "predict", photo, "--model", "nano", "--json", *runs)
    assert code == 0, log
    assert "shipped weights: nano" in log
    assert "through PyTorch" in log
    by_checkpoint = json.loads(said)[0]["best"]
    assert by_checkpoint[0]["name"] == "espresso"
    # Nothing is downloaded for a proof: without the data at hand it is numeric, and says so.
    code, said, log = outcome(cli, "export", "nano", "--batch", "1:4:9", "--proof-images", 32, *runs)
    assert (code, "accuracy not proven" in log) == (0, True), log
    assert (tmp_path / "runs" / "nano" / "export" / "fp32.onnx").is_file()
    code, said, log = outcome(cli, "predict", photo, "--model", "nano", "--json", *runs)
    assert (code, "through PyTorch" in log) == (0, False), log
    by_artifact = json.loads(said)[0]["best"]
    assert [guess["id"] for guess in by_artifact] == [guess["id"] for guess in by_checkpoint]
    assert by_artifact[0]["probability"] == pytest.approx(by_checkpoint[0]["probability"], abs=1e-5)
    code, said, log = outcome(cli, "plot", "nano", *runs)
    assert code == 0, log
    assert (tmp_path / "runs" / "nano" / "curves.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_they_are_judged_and_measured_on_the_data_that_is_named(cli: CliRunner, nano: Run, tmp_path: Path) -> None:
    """Drawn pictures in folders named like their classes: far from real, but the whole of eval and bench."""
    data = write_pictures_of(CLASSES, tmp_path / "data")
    options = ["--runs", tmp_path / "runs", "--data", data]
    code, said, log = outcome(cli, "eval", "nano", "--json", *options)
    assert (code, json.loads(said)["accuracy"]["images"]) == (0, 200), log
    code, said, log = outcome(cli, "bench", "nano", "--quick", "--batch", "1", "--threads", 1, *options)
    assert code == 0, log
    assert (tmp_path / "runs" / "nano" / "bench" / "results.json").is_file()


def write_pictures_of(classes: dict[str, str], root: Path) -> Path:
    """A training and a validation picture of each class."""
    for split in ("train", "val"):
        for number, wnid in enumerate(classes):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            Image.fromarray(shapes.render(split, number, 64)).save(folder / "1.png")
    return root


def test_a_training_may_start_from_them(tmp_path: Path) -> None:
    start = find_start("nano", tmp_path)
    assert (start.spec.blocks, start.spec.widths) == (NANO.blocks, NANO.widths)
