"""What the tests share: a cache of their own, small pictures in folders, and one tiny run that is trained once."""

from __future__ import annotations

import os

# Before torch is imported anywhere: networks this small are fastest on one thread, and many times slower on two that
# something else on the machine keeps waiting. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY, TrainedRun, write_pictures
from typer.testing import CliRunner

from tinyres.bench import measure
from tinyres.bench.schedule import Effort
from tinyres.export.artifact import Exported
from tinyres.export.pipeline import export_onnx
from tinyres.progress import Silent
from tinyres.training import launch
from tinyres.training.train import train


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs but from `make test-gpu`: a training of a second would compile for many, and its bits would vary."""
    if not on_gpus(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def on_gpus(config: pytest.Config) -> bool:
    """Whether the tests that need a GPU were asked for."""
    return bool(config.option.markexpr == "gpu")


REPOSITORY = Path(__file__).resolve().parents[1]
REAL_ZIP = REPOSITORY.parent / "shared" / "data" / "tiny-imagenet-200.zip"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["TINYRES_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["NO_COLOR"] = "1"
    os.environ["COLUMNS"] = "80"


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


@pytest.fixture(scope="session")
def trained(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run on the picture folder, finished. Not to be changed."""
    runs = tmp_path_factory.mktemp("runs")
    started = launch.new_run(str(picture_folder), TINY, runs=runs, name="tiny", progress=Silent())
    train(started.run, started.config, started.dataset, progress=Silent())
    return TrainedRun(started, runs)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run on enough pictures for int8, 300 and 60, finished. Not to be changed."""
    root = tmp_path_factory.mktemp("drawn")
    write_pictures(root / "train", classes=3, each=100)
    write_pictures(root / "val", classes=3, each=20, split="val")
    runs = tmp_path_factory.mktemp("runs")
    recipe = replace(TINY, widths=(16, 32), epochs=6)
    started = launch.new_run(str(root), recipe, runs=runs, name="drawn", progress=Silent())
    train(started.run, started.config, started.dataset, progress=Silent())
    return TrainedRun(started, runs)


@pytest.fixture(scope="session")
def exported(trained: TrainedRun) -> Exported:
    """The run's artifact, proven. Not to be changed."""
    return export_onnx(
        trained.best,
        trained.started.run.path / "export" / "fp32.onnx",
        dataset=trained.started.dataset,
        batches=(1, 4, 9),
        progress=Silent(),
    )


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Effort:
    """How little `bench --quick` measures within the test: its figures mean nothing."""
    effort = Effort(
        seconds=0.1,
        runs=8,
        limit_s=1.0,
        limit_runs=4,
        rounds=2,
        side_s=0.01,
        side_batch_s=0.005,
        side_rounds=1,
        all_ways=False,
    )
    monkeypatch.setitem(measure.EFFORTS, "quick", effort)
    return effort


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
