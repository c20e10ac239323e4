"""On Tiny ImageNet itself, where it lies beside the repository: a few classes, a small network, minutes."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tinyres.data.dataset import open_dataset
from tinyres.data.layout import read_layout
from tinyres.data.store import ZipStore
from tinyres.data.tiny_imagenet import CLASSES
from tinyres.export.pipeline import export_onnx
from tinyres.progress import Silent
from tinyres.recipes import DEMO
from tinyres.training import launch
from tinyres.training.train import train

pytestmark = pytest.mark.slow


def test_the_whole_layout_is_the_official_one(real_zip: Path) -> None:
    layout = read_layout(ZipStore(real_zip), place="real")
    assert layout.kind == "tiny-imagenet"
    assert dict(zip(layout.class_ids, layout.class_names, strict=True)) == CLASSES
    assert len(layout.train) == 100_000
    counts = [0] * 200
    for _, label in layout.val:
        counts[label] += 1
    assert counts == [50] * 200


@pytest.fixture(scope="module")
def five_classes(real_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes of the archive as a zip in the same layout."""
    wanted = list(CLASSES)[::40]
    path = tmp_path_factory.mktemp("real") / "five.zip"
    with zipfile.ZipFile(real_zip) as archive, zipfile.ZipFile(path, "w") as small:
        root = "tiny-imagenet-200"
        lines = archive.read(f"{root}/val/val_annotations.txt").decode().splitlines()
        kept = [line for line in lines if line.split("\t")[1] in wanted]
        small.writestr(f"{root}/val/val_annotations.txt", "\n".join(kept))
        small.writestr(f"{root}/words.txt", archive.read(f"{root}/words.txt"))
        names = [f"{root}/val/images/{line.split()[0]}" for line in kept]
        names += [name for name in archive.namelist() if name.endswith(".JPEG") and name.split("/")[2] in wanted]
        for name in names:
            small.writestr(name, archive.read(name))
    return path


def test_a_small_network_learns_real_pictures_and_its_export_is_proven(five_classes: Path, tmp_path: Path) -> None:
    recipe = replace(DEMO, name="small", widths=(8, 16, 32, 64), epochs=4, image_size=32)
    started = launch.new_run(str(five_classes), recipe, runs=tmp_path, progress=Silent())
    assert started.dataset.manifest.counts == {"train": 2500, "val": 250}
    assert started.config.spec.class_names[0] == "goldfish, Carassius auratus"
    result = train(started.run, started.config, started.dataset, progress=Silent())
    assert result.best is not None
    assert result.best.val_acc > 0.4  # chance is 0.2, with a standard deviation of 0.025
    made = export_onnx(
        started.run.best, tmp_path / "fp32.onnx", dataset=started.dataset, proof_images=250, progress=Silent()
    )
    assert made.certificate.grade == "full"
    levels = {level.name: level for level in made.certificate.levels}
    assert levels["accuracy"].measured["artifact"] == pytest.approx(result.best.val_acc)
    assert levels["accuracy"].measured["images"] == 250


def test_mean_and_std_of_real_pictures_are_near_the_seeds(five_classes: Path) -> None:
    statistics = open_dataset(str(five_classes)).manifest.statistics
    # Five of two hundred classes: the seed's constants are of all. The whole set is in results/whole-path/cache.json.
    assert statistics.mean == pytest.approx((0.4802, 0.4481, 0.3975), abs=0.05)
    assert statistics.std == pytest.approx((0.2296, 0.2263, 0.2255), abs=0.05)
