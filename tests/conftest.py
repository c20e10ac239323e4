"""What the tests share: a cache of their own, small pictures in folders, and one tiny run that is trained once."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tinyres import launch, recipes
from tinyres.data import shapes
from tinyres.export.pipeline import Exported, export_onnx
from tinyres.launch import Started
from tinyres.progress import Silent
from tinyres.train import train

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_ZIP = REPOSITORY.parent / "shared" / "data" / "tiny-imagenet-200.zip"

TINY = replace(recipes.DEMO, name="tiny", blocks=(1, 1), widths=(8, 16), image_size=16, epochs=3, batch_size=16)
"""Trains in a second or two on a few hundred pictures."""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["TINYRES_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["NO_COLOR"] = "1"
    os.environ["COLUMNS"] = "80"


def write_pictures(folder: Path, *, classes: int, each: int, split: str = "train", size: int = 16) -> Path:
    """A folder per class of drawn pictures, as PNG."""
    for index in range(classes * each):
        label = shapes.label_of(index) if classes == len(shapes.CLASSES) else index % classes
        number = (index // classes) * len(shapes.CLASSES) + label
        home = folder / shapes.CLASSES[label]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shapes.render(split, number, size)).save(home / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ with three classes; 60 and 15 pictures. Not to be changed."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root / "train", classes=3, each=20)
    write_pictures(root / "val", classes=3, each=5, split="val")
    return root


@pytest.fixture
def own_pictures(picture_folder: Path, tmp_path: Path) -> Path:
    """A copy of the pictures that a test may break."""
    return Path(shutil.copytree(picture_folder, tmp_path / "pictures"))


@dataclass(frozen=True)
class TrainedRun:
    """A tiny run and the folder it lies in."""

    started: Started
    runs: Path

    @property
    def best(self) -> Path:
        return self.started.run.best


@pytest.fixture(scope="session")
def trained(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run on the picture folder, finished. Not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    started = launch.new_run(str(picture_folder), TINY, runs=runs, name="tiny", progress=Silent())
    train(started.run, started.config, started.dataset, progress=Silent())
    return TrainedRun(started, runs)


@pytest.fixture(scope="session")
def exported(trained: TrainedRun) -> Exported:
    """The run's artifact, proven. Not to be changed."""
    return export_onnx(
        trained.best,
        trained.started.run.exports / "fp32.onnx",
        dataset=trained.started.dataset,
        batches=(1, 4, 9),
        progress=Silent(),
    )


@pytest.fixture
def cli() -> CliRunner:
    """Runs commands in this process; stdout and stderr apart."""
    return CliRunner()


@pytest.fixture(scope="session")
def real_zip() -> Path:
    """Tiny ImageNet, where it lies beside the repository."""
    if not REAL_ZIP.is_file():
        pytest.skip("tiny-imagenet-200.zip is not beside the repository (shared/data)")
    return REAL_ZIP
