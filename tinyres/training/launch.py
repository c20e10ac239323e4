"""From a user's words to a run folder: a new training, or one to go on with."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tinyres import environment, records
from tinyres.data.dataset import Dataset
from tinyres.data.sources import NAMED
from tinyres.errors import CheckpointError, DataError, TinyresError, TrainingError, UsageError, require_choice
from tinyres.files import at_home, cache_root, remove
from tinyres.header import CheckpointHeader, Origin, read_header
from tinyres.metrics import wilson_interval
from tinyres.recipes import Recipe, find_recipe, override
from tinyres.run_data import open_run_data, run_data
from tinyres.runs import SCHEMA, JudgedOn, Run, RunConfig, create_run, find_model, now, save_config
from tinyres.spec import ModelSpec, Preprocess
from tinyres.training.caution import warn_of_data, warn_of_seen_pictures
from tinyres.units import counted, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from tinyres.progress import Progress
    from tinyres.training.distributed import World
    from tinyres.training.train import Options, TrainResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A new training in a user's words."""

    data: str = "tiny-imagenet"
    recipe: str | None = None
    """A name or a run's config.json; None is what suits the machine, or `init`."""
    assignments: tuple[str, ...] = ()
    """field=value"""
    init: str | None = None
    """MODEL to start from."""
    split: str = "val"
    name: str | None = None
    seed: int = 0
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """A trained model that training goes on from, instead of random weights."""

    path: Path
    name: str
    spec: ModelSpec
    origin: Origin

    def weights(self, spec: ModelSpec) -> tuple[dict[str, Any], str]:
        """Its tensors for a model of `spec`, without the classifier where the classes differ; and the file's SHA-256.

        Errors: CheckpointError if the networks differ.
        """
        from tinyres.checkpoint import load_weights
        from tinyres.training.optim import HEAD

        if (self.spec.blocks, self.spec.widths) != (spec.blocks, spec.widths):
            raise CheckpointError(
                f"{self.name} has blocks {self.spec.blocks} and widths {self.spec.widths}, the run {spec.blocks} and"
                f" {spec.widths}",
                hint="with --init leave out --set blocks and --set widths",
            )
        checkpoint = load_weights(self.path)
        kept = self.spec.class_ids == spec.class_ids
        return {
            name: tensor for name, tensor in checkpoint.tensors.items() if kept or not name.startswith(HEAD)
        }, checkpoint.sha256


@dataclass(frozen=True, slots=True)
class Started:
    """A run ready to train."""

    run: Run
    config: RunConfig
    dataset: Dataset
    start: Mapping[str, Any] | None = None
    """Tensors to begin with, of a new run that --init gave some."""


def begin(
    request: Request,
    old: Run | None,
    *,
    runs: Path,
    home: Path | None = None,
    world: World | None = None,
    cache_dir: Path | None = None,
    progress: Progress,
) -> Started:
    """A new run as requested, or `old` to go on with. `home` is where a new one goes, if not into `runs`.

    Errors: UsageError for a request that changes an old run, or as `new_run` and `old_run`.
    """
    if old is not None and replace(request, data=Request().data) != Request():
        raise UsageError(
            "a resumed run keeps its recipe, split, name and seed",
            hint="give --resume alone, with --max-time, or with --data where its pictures moved",
        )
    if world is not None and not world.is_first:
        return _follow(world, cache_dir=cache_dir, progress=progress)
    if old is not None:
        moved = request.data if request.data != Request().data else None
        started = old_run(old, moved, cache_dir=cache_dir, progress=progress)
    else:
        judged_on = parse_split(request.split)
        start = find_start(request.init, runs) if request.init is not None else None
        recipe = choose_recipe(request.recipe, list(request.assignments), start)
        progress.log(f"recipe {recipe.name}: {recipe.about}")
        started = new_run(
            request.data,
            recipe,
            runs=home or runs,
            name=request.name,
            seed=request.seed,
            judged_on=judged_on,
            start=start,
            deterministic=request.deterministic,
            cache_dir=cache_dir,
            progress=progress,
        )
    if world is not None:
        world.first((started.run.path, started.config, started.start))
    return started


def _follow(world: World, *, cache_dir: Path | None, progress: Progress) -> Started:
    """The first process's run in another one, which opens the data itself: decoded here already, or on this machine."""
    path, config, start = world.first((Path(), None, None))
    if config is None:
        raise TrainingError("the first process has begun no run")
    return Started(Run(path), config, run_data(config, cache_dir=cache_dir, progress=progress), start)


@contextmanager
def processes() -> Iterator[World | None]:
    """Join the other processes of a start by torchrun; None for one process, without loading PyTorch."""
    if environment.process_count() == 1:
        yield None
        return
    from tinyres.training.distributed import joined

    with joined() as world:
        yield world


def find_start(text: str, runs: Path) -> Start:
    """The checkpoint that `--init` names. Errors: UsageError, CheckpointError."""
    model = find_model(text, runs)
    header = None
    if model.path.suffix == ".safetensors":
        with model.path.open("rb") as file:
            header = read_header(file)
    if header is None:
        raise CheckpointError(f"{model.path} is no checkpoint to start from", hint="name a run or its best.safetensors")
    found = records.from_json(CheckpointHeader, header[0], source=f"the header of {model.path}", error=CheckpointError)
    return Start(model.path, model.name, found.spec, found.origin)


def choose_recipe(name: str | None, assignments: list[str], start: Start | None) -> Recipe:
    """The recipe to train by: the one named, else what suits `start` or the machine; with `--set` applied.

    With `start` the network and the pictures' size are its. Errors: UsageError, InputError.
    """
    recipe = find_recipe(name or ("finetune" if start else _default_recipe()))
    if start is None:
        recipe = override(recipe, assignments)
        if recipe.backbone_lr != 1:
            raise UsageError(
                f"recipe {recipe.name} trains the layers below the classifier {recipe.backbone_lr:g} times as fast:"
                " they have to be trained already",
                hint="--init MODEL names a run to start from, or --set backbone_lr=1",
            )
        return recipe
    spec = start.spec
    like = replace(recipe, blocks=spec.blocks, widths=spec.widths, image_size=spec.preprocess.image_size)
    return override(like, assignments)


def _default_recipe() -> str:
    from tinyres.model import pick_device

    return "fast" if pick_device().type == "cuda" else "nano"


def new_run(
    data: str,
    recipe: Recipe,
    *,
    runs: Path,
    name: str | None = None,
    seed: int = 0,
    judged_on: JudgedOn = "val",
    start: Start | None = None,
    deterministic: bool = False,
    cache_dir: Path | None = None,
    progress: Progress,
) -> Started:
    """Open the data and make the run's folder. Errors: DataError, UsageError, CheckpointError, StorageError."""
    dataset = open_run_data(
        data, image_size=recipe.image_size, judged_on=judged_on, seed=seed, cache_dir=cache_dir, progress=progress
    )
    if start is not None:
        warn_of_seen_pictures(start, dataset, cache_root(cache_dir), progress)
    spec = spec_for(dataset, recipe, start)
    weights, digest = start.weights(spec) if start else (None, "")
    run = create_run(runs, name, stem=recipe.name)
    config = RunConfig(
        schema=SCHEMA,
        name=run.name,
        created=now(),
        data=_place(data),
        data_kind=dataset.manifest.kind,
        data_fingerprint=dataset.manifest.fingerprint,
        judged_on=judged_on,
        seed=seed,
        recipe=recipe,
        spec=spec,
        started_from=digest,
        deterministic=deterministic,
    )
    save_config(run, config, environment.capture())
    run.set_state("stopped", epochs=0, message="not started")
    return Started(run, config, dataset, weights)


def _place(data: str) -> str:
    """As it can be found again from another folder."""
    return data if data in NAMED else str(at_home(data).absolute())


def parse_split(text: str) -> JudgedOn:
    """What `--split` may be. Errors: UsageError."""
    require_choice("split", text, get_args(JudgedOn))
    return "holdout" if text == "holdout" else "val"


def old_run(run: Run, data: str | None = None, *, cache_dir: Path | None = None, progress: Progress) -> Started:
    """Open a run to go on with, and its pictures, from `data` where they moved. Errors: InputError, UsageError."""
    if not run.last.is_file():
        raise CheckpointError(
            f"the run {run.name} has saved nothing to resume from", hint="tinyres train starts a new one"
        )
    config = run.config()
    if data is not None:
        return _moved(run, replace(config, data=_place(data)), cache_dir=cache_dir, progress=progress)
    try:
        dataset = run_data(config, cache_dir=cache_dir, progress=progress)
    except DataError as exc:
        raise DataError(str(exc), hint="--data names where it is now; or start a new run") from exc
    return Started(run, config, dataset)


def _moved(run: Run, config: RunConfig, *, cache_dir: Path | None, progress: Progress) -> Started:
    """The run with its pictures at another place, which is kept. Errors: DataError if they are others."""
    dataset = open_run_data(
        config.data,
        image_size=config.spec.preprocess.image_size,
        judged_on=config.judged_on,
        seed=config.seed,
        cache_dir=cache_dir,
        progress=progress,
    )
    if dataset.manifest.fingerprint != config.data_fingerprint:
        raise DataError(
            f"{config.data} does not hold the pictures that run {run.name} was trained on",
            hint="the files' names and times count: move them, or copy them with cp -a",
        )
    records.save(run.path / "config.json", config)
    return Started(run, config, dataset)


def describe(started: Started) -> str:
    """One line on a run: network, data and recipe."""
    config, dataset = started.config, started.dataset
    recipe, spec = config.recipe, config.spec
    if recipe is None:
        return f"run {config.name}: imported"
    split_here = dataset.manifest.kind == "folders-split" and dataset.judged_on == "val"
    judged_on = "held back" if split_here else dataset.judged_on
    return (
        f"run {config.name}: recipe {recipe.name}, blocks {'-'.join(map(str, spec.blocks))}, widths"
        f" {'-'.join(map(str, spec.widths))}, {len(dataset.train):,} pictures of {spec.classes} classes,"
        f" {counted(recipe.epochs, 'epoch')}, judged on {len(dataset.val):,} ({judged_on})"
    )


def describe_end(started: Started, result: TrainResult) -> str:
    """How a training ended and what it reached."""
    from tinyres.training.summary import describe_summary

    run, best = started.run, result.best
    ending = f"finished, {duration(sum(epoch.seconds for epoch in result.history))} in steps"
    if result.stopped:
        ending = f"stopped ({result.stopped})"
    reached = "nothing trained yet"
    if result.summary is not None:
        reached = describe_summary(result.summary)
    elif best is not None:
        judged = f"{best.val_images:,} {started.dataset.judged_on} images"
        low, high = wilson_interval(round(best.val_acc * best.val_images), best.val_images)
        reached = f"best epoch {best.epoch}: {best.val_acc:.1%} top-1 (95 %: {low:.1%} to {high:.1%} of {judged})"
    return f"{run.path}: {ending}\n{reached}"


def carry_out(
    started: Started,
    options: Options,
    *,
    world: World | None,
    progress: Progress,
    copied_to: Callable[[Path], AbstractContextManager[None]],
) -> TrainResult:
    """Train what was begun. The first process says what, and keeps `progress` beside the run by `copied_to`.

    Errors: as `tinyres.training.train.train`; a run that saved nothing before one leaves nothing.
    """
    from tinyres.training.train import train

    run = started.run
    with ExitStack() as stack:
        if world is None or world.is_first:
            stack.enter_context(_kept_if_saved(run))
            stack.enter_context(copied_to(run.path / "train.log"))
        progress.log(describe(started))
        warn_of_data(started, progress)
        return train(
            run,
            started.config,
            started.dataset,
            options=options,
            start=started.start,
            world=world,
            progress=progress,
        )


@contextmanager
def _kept_if_saved(run: Run) -> Iterator[None]:
    """Remove a run that is interrupted, or refused, before it saved anything: its name is free for the next try."""
    try:
        yield
    except (KeyboardInterrupt, TinyresError):
        if not run.last.is_file():
            remove(run.path)
        raise


def spec_for(dataset: Dataset, recipe: Recipe, start: Start | None = None) -> ModelSpec:
    """The model a recipe makes of a data set.

    Mean and std are those of the model it starts from; else Tiny ImageNet gets the seed's, other data its own.
    """
    preprocess = Preprocess(image_size=recipe.image_size)
    if start is not None:
        preprocess = replace(start.spec.preprocess, image_size=recipe.image_size)
    elif dataset.manifest.kind != "tiny-imagenet":
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
