"""The data of a run: opened again and known to be the same, for going on, judging and proving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyres.data.dataset import Dataset, find_cached, is_at_hand, open_dataset, reopen_dataset, with_holdout
from tinyres.data.sources import NAMED
from tinyres.errors import DataError, UsageError
from tinyres.files import at_home, cache_root
from tinyres.runtime.backends import open_runner
from tinyres.spec import ModelSpec, classes_apart

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.progress import Progress
    from tinyres.runs import JudgedOn, Model, RunConfig


def run_data(config: RunConfig, *, cache_dir: Path | None = None, progress: Progress) -> Dataset:
    """The data a run was trained on. Errors: DataError if it is gone or has changed, and its cache is gone too."""
    try:
        dataset = reopen_dataset(
            config.data,
            config.data_kind,
            config.data_fingerprint,
            image_size=config.spec.preprocess.image_size,
            cache_dir=cache_dir,
            progress=progress,
        )
    except DataError as exc:
        if config.data in NAMED or at_home(config.data).exists():
            raise
        raise DataError(
            f"the data of run {config.name} is gone: there is no {config.data}", hint="--data names where it is now"
        ) from exc
    if dataset is None:
        # A changed folder may have moved training pictures into its validation split.
        raise DataError(
            f"the data of run {config.name} has changed since it was trained",
            hint="--data names what to judge on now; a new run trains on it",
        )
    return _judged_on(dataset, config.judged_on, config.seed)


def open_run_data(
    data: str, *, image_size: int, judged_on: JudgedOn, seed: int, cache_dir: Path | None, progress: Progress
) -> Dataset:
    """Open a data set with the split a run is judged on."""
    dataset = open_dataset(data, image_size=image_size, cache_dir=cache_dir, progress=progress)
    return _judged_on(dataset, judged_on, seed)


def _judged_on(dataset: Dataset, judged_on: JudgedOn, seed: int) -> Dataset:
    return with_holdout(dataset, seed=seed) if judged_on == "holdout" else dataset


def data_of(model: Model, data: str | None, *, cache_dir: Path | None, progress: Progress) -> Dataset:
    """The data to judge a model on: what is named, else its run's. Errors: UsageError if none is known."""
    if data is not None:
        size = load_spec(model).preprocess.image_size
        return open_dataset(data, image_size=size, cache_dir=cache_dir, progress=progress)
    if model.run is None or (config := model.run.config()).data_kind == "unknown":
        raise UsageError(f"it is not known what {model.name} was trained on", hint="--data names it")
    return run_data(config, cache_dir=cache_dir, progress=progress)


def data_at_hand(model: Model, data: str | None, *, cache_dir: Path | None, progress: Progress) -> Dataset | None:
    """As `data_of`, but None where nothing is named and the run's data is not here; nothing is downloaded for it."""
    if data is not None:
        return data_of(model, data, cache_dir=cache_dir, progress=progress)
    if model.run is None:
        return None
    config = model.run.config()
    root = cache_root(cache_dir)
    kind, fingerprint = config.data_kind, config.data_fingerprint
    to_fetch = config.data == "tiny-imagenet" and not is_at_hand(root)
    if kind == "unknown" or (to_fetch and find_cached(kind, fingerprint, root, name=config.data) is None):
        return None
    try:
        return run_data(config, cache_dir=cache_dir, progress=progress)
    except DataError as exc:
        progress.warn(f"{exc}; judging on drawn pictures instead")
        return None


def load_spec(model: Model) -> ModelSpec:
    """The spec of a model's file. Errors: CheckpointError, ArtifactError."""
    if model.run is not None:
        return model.run.config().spec
    with open_runner(model.path) as runner:
        return runner.spec


def require_same_classes(dataset: Dataset, spec: ModelSpec) -> None:
    """Errors: UsageError if a data set has other classes, another order of them, or another size than the model."""
    manifest = dataset.manifest
    if manifest.class_ids != spec.class_ids:
        raise UsageError(
            f"the data {dataset.name} has other classes than the model ({len(manifest.class_ids)} and {spec.classes}):"
            f" {classes_apart(manifest, spec, ('the data', 'the model'))}",
            hint="--data must name the data the model was trained on",
        )
    if manifest.image_size != spec.preprocess.image_size:
        raise UsageError(
            f"the data is cached at {manifest.image_size} pixels, the model takes {spec.preprocess.image_size}"
        )
