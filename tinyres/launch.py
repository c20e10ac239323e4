"""From a user's words to a run folder: a new training, one to go on with, or an import."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from tinyres import environment, records
from tinyres.data.dataset import Dataset, open_dataset, with_holdout
from tinyres.data.sources import NAMED
from tinyres.errors import CheckpointError, DataError, UsageError, require_choice
from tinyres.files import remove
from tinyres.recipes import Recipe
from tinyres.runs import SCHEMA, Epoch, Run, RunConfig, create_run, now, save_config
from tinyres.spec import ModelSpec, Preprocess
from tinyres.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinyres.progress import Progress
    from tinyres.train import TrainResult

JudgedOn = Literal["val", "holdout"]


@dataclass(frozen=True, slots=True)
class Started:
    """A run ready to train."""

    run: Run
    config: RunConfig
    dataset: Dataset


def new_run(
    data: str,
    recipe: Recipe,
    *,
    runs: Path,
    name: str | None = None,
    seed: int = 0,
    judged_on: JudgedOn = "val",
    cache_dir: Path | None = None,
    progress: Progress,
) -> Started:
    """Open the data and make the run's folder. Errors: DataError, UsageError, StorageError."""
    dataset = open_run_data(
        data, image_size=recipe.image_size, judged_on=judged_on, seed=seed, cache_dir=cache_dir, progress=progress
    )
    spec = spec_for(dataset, recipe)
    run = create_run(runs, name, stem=recipe.name)
    config = RunConfig(
        schema=SCHEMA,
        name=run.name,
        created=now(),
        data=data if data in NAMED else str(Path(data).expanduser().absolute()),
        data_kind=dataset.manifest.kind,
        data_fingerprint=dataset.manifest.fingerprint,
        judged_on=judged_on,
        seed=seed,
        recipe=recipe,
        spec=spec,
    )
    save_config(run, config, environment.capture())
    run.set_state("stopped", epochs=0, message="not started")
    return Started(run, config, dataset)


def parse_split(text: str) -> JudgedOn:
    """What `--split` may be. Errors: UsageError."""
    require_choice("split", text, get_args(JudgedOn))
    return "holdout" if text == "holdout" else "val"


def old_run(run: Run, *, cache_dir: Path | None = None, progress: Progress) -> Started:
    """Open a run to go on with, and its data. Errors: InputError, UsageError."""
    if not run.last.is_file():
        raise CheckpointError(
            f"the run {run.name} has saved nothing to resume from", hint="tinyres train starts a new one"
        )
    config = run.config()
    try:
        dataset = run_data(config, cache_dir=cache_dir, progress=progress)
    except DataError as exc:
        raise DataError(str(exc), hint="put the data back as it was, or start a new run") from exc
    return Started(run, config, dataset)


def run_data(config: RunConfig, *, cache_dir: Path | None = None, progress: Progress) -> Dataset:
    """The data a run was trained on. Errors: DataError if it is gone or has changed."""
    dataset = open_run_data(
        config.data,
        image_size=config.spec.preprocess.image_size,
        judged_on=config.judged_on,
        seed=config.seed,
        cache_dir=cache_dir,
        progress=progress,
    )
    if dataset.manifest.fingerprint != config.data_fingerprint:
        # A changed folder may have moved training pictures into its validation split.
        raise DataError(
            f"the data of run {config.name} has changed since it was trained",
            hint="--data names what to judge on now; a new run trains on it",
        )
    return dataset


def open_run_data(
    data: str, *, image_size: int, judged_on: JudgedOn, seed: int, cache_dir: Path | None, progress: Progress
) -> Dataset:
    """Open a data set with the split a run is judged on."""
    dataset = open_dataset(data, image_size=image_size, cache_dir=cache_dir, progress=progress)
    return with_holdout(dataset, seed=seed) if judged_on == "holdout" else dataset


def describe(started: Started) -> str:
    """One line on a run: network, data and recipe."""
    config, dataset = started.config, started.dataset
    recipe, spec = config.recipe, config.spec
    if recipe is None:
        return f"run {config.name}: imported"
    return (
        f"run {config.name}: recipe {recipe.name}, blocks {'-'.join(map(str, spec.blocks))}, widths"
        f" {'-'.join(map(str, spec.widths))}, {len(dataset.train):,} pictures of {spec.classes} classes,"
        f" {counted(recipe.epochs, 'epoch')}, judged on {len(dataset.val):,} ({dataset.judged_on})"
    )


def describe_end(started: Started, result: TrainResult) -> str:
    """How a training ended, what it reached, and the command to type next."""
    run, best = started.run, result.best
    ending = (
        f"stopped ({result.stopped}); go on with: tinyres train --resume {run.name}" if result.stopped else "finished"
    )
    reached = f"best epoch {best.epoch}: {best.val_acc:.1%} top-1" if best else "nothing trained yet"
    return f"{run.path}: {ending}\n{reached} (selected on {started.config.judged_on})\nnext: tinyres export {run.name}"


@contextmanager
def kept_if_saved(run: Run) -> Iterator[None]:
    """Remove a run that is interrupted before it saved anything, as while PyTorch loads."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.last.is_file():
            remove(run.path)
        raise


def spec_for(dataset: Dataset, recipe: Recipe) -> ModelSpec:
    """The model a recipe makes of a data set. Tiny ImageNet gets the seed's mean and std, other data its own."""
    preprocess = Preprocess(image_size=recipe.image_size)
    if dataset.manifest.kind != "tiny-imagenet":
        statistics = dataset.manifest.statistics
        red, green, blue = (max(round(value, 4), 0.01) for value in statistics.std)  # all-gray pictures have none
        mean = statistics.mean
        preprocess = Preprocess(
            image_size=recipe.image_size,
            mean=(round(mean[0], 4), round(mean[1], 4), round(mean[2], 4)),
            std=(red, green, blue),
        )
    return ModelSpec(
        class_names=dataset.manifest.class_names,
        class_ids=dataset.manifest.class_ids,
        blocks=recipe.blocks,
        widths=recipe.widths,
        dropout=recipe.dropout,
        preprocess=preprocess,
    )


@dataclass(frozen=True, slots=True)
class SeedHistory:
    """The seed's `training_history.json`."""

    train_loss: list[float]
    train_acc: list[float]
    val_loss: list[float]
    val_acc: list[float]
    lr: list[float]


def import_seed(
    file: Path, *, runs: Path, name: str | None = None, classes: Path | None = None, history: Path | None = None
) -> Run:
    """Make a run of the seed's bare state dict. Errors: CheckpointError, InputError, UsageError.

    `classes` is a text file, a class a line (`id`, or `id<TAB>name`), in the order of the outputs. Without it, 200
    outputs are taken for Tiny ImageNet's sorted wnids, any other number is named class_0, class_1, ...
    """
    from tinyres import seed
    from tinyres.checkpoint import save_tensors
    from tinyres.header import Origin
    from tinyres.model import build_model

    tensors = seed.convert(seed.read_state_dict(file), place=str(file))
    blocks, widths, outputs = seed.shape_of(tensors, place=str(file))
    class_ids, class_names = _read_classes(classes, outputs)
    spec = ModelSpec(class_names=class_names, class_ids=class_ids, blocks=blocks, widths=widths)
    try:
        build_model(spec).load_state_dict(tensors, strict=True)
    except RuntimeError as exc:
        raise CheckpointError(f"{file} does not fit the network: {str(exc).splitlines()[1].strip()}") from exc
    epochs = _read_history(history) if history else []
    run = create_run(runs, name, stem="import")
    config = RunConfig(
        schema=SCHEMA,
        name=run.name,
        created=now(),
        data="tiny-imagenet",
        data_kind="unknown",
        data_fingerprint="",
        judged_on="val",
        seed=0,
        recipe=None,
        spec=spec,
    )
    save_config(run, config, environment.capture())
    origin = Origin(
        run=run.name, recipe="imported", data_kind="unknown", data_fingerprint="", epoch=0, step=0, selected_on="none"
    )
    save_tensors(run.best, tensors, spec, origin)
    run.save_history(epochs)
    run.set_state("imported", epochs=len(epochs))
    return run


def _read_classes(path: Path | None, outputs: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if path is None:
        if outputs == 200:
            from tinyres.data.tiny_imagenet import WNIDS, WORDS

            return WNIDS, WORDS
        names = tuple(f"class_{index}" for index in range(outputs))
        return names, names
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read --classes {path}: {exc}") from exc
    if len(lines) != outputs:
        raise UsageError(f"{path} has {len(lines)} classes, the weights have {outputs} outputs")
    ids = tuple(line.split("\t")[0].strip() for line in lines)
    return ids, tuple(line.split("\t")[-1].strip() for line in lines)


def _read_history(path: Path) -> list[Epoch]:
    seen = records.load(SeedHistory, path)
    rows = zip(seen.train_loss, seen.train_acc, seen.val_loss, seen.val_acc, seen.lr, strict=False)
    return [
        Epoch(number, 0, True, train_loss, train_acc, val_loss, val_acc, 0, lr, 0.0, 0.0)
        for number, (train_loss, train_acc, val_loss, val_acc, lr) in enumerate(rows, start=1)
    ]
