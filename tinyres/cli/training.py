"""Runs: train them, import the original project's, draw them."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyres.cli import completing
from tinyres.cli.command import command
from tinyres.cli.completing import offer
from tinyres.cli.root import RUNS, Cache, Data, Runs, app
from tinyres.console import Console, shell_line

if TYPE_CHECKING:
    from tinyres.training.distributed import World
    from tinyres.training.launch import Request, Started

RunName = Annotated[str | None, typer.Option("--name", help="Of the run; else one with a number.")]
DRAWN = (".png", ".pdf", ".svg", ".jpg")
"""What a curve may be drawn as."""


@command(
    app,
    examples=(
        ("all of them", "tinyres recipes"),
        ("one, with what each field means", "tinyres recipes nano"),
        ("then train with one", "tinyres train --recipe nano"),
        ("with a field of its own", "tinyres train --recipe fast --set epochs=30"),
    ),
)
def recipes(
    out: Console,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="One in full; or a run's config.json.", autocompletion=completing.recipes
        ),
    ] = None,
) -> None:
    """The training recipes, side by side; or one, with what each of its fields means."""
    from tinyres.recipe_text import describe_recipe, describe_recipes
    from tinyres.recipes import RECIPES, find_recipe

    if name is None:
        out.result(list(RECIPES.values()), describe_recipes(), shell_line("train", "--recipe", "nano"))
        return
    recipe = find_recipe(name)
    start = ("--init", "nano") if recipe.backbone_lr != 1 else ()  # it goes on from trained layers alone
    out.result([recipe], describe_recipe(recipe), shell_line("train", "--recipe", name, *start))


@command(
    app,
    examples=(
        ("Tiny ImageNet, as this machine can", "tinyres train"),
        (
            "a folder with a folder of pictures per class, from a trained model",
            "tinyres train --data photos --init nano",
        ),
        ("twenty minutes and no longer", "tinyres train --data tiny-imagenet-200.zip --max-time 20m"),
        ("go on with one that stopped", "tinyres train --resume nano-1"),
    ),
)
def train(
    out: Console,
    data: Data = "tiny-imagenet",
    recipe: Annotated[
        str | None,
        typer.Option(help="See `tinyres recipes`; or a run's config.json.", autocompletion=completing.recipes),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A recipe's field.")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Start from its weights: fine-tune.", autocompletion=completing.models),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="val: the data's own; holdout: a tenth of the training pictures.",
            autocompletion=offer(completing.SPLITS),
        ),
    ] = "val",
    max_time: Annotated[str | None, typer.Option(help="Stop cleanly after, for example, 20m.")] = None,
    name: RunName = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run that stopped.", autocompletion=completing.runs),
    ] = None,
    strict_resume: Annotated[bool, typer.Option("--strict-resume", help="Only if it goes on bit for bit.")] = False,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits on a GPU, slower.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write runs/NAME/tensorboard.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Only show where a step's time goes.")] = False,
    runs: Runs = RUNS,
    cache: Cache = None,
) -> int:
    """Train a model into runs/NAME; Ctrl-C stops cleanly, --resume goes on."""
    from tinyres.environment import process_rank
    from tinyres.errors import UsageError
    from tinyres.runs import find_run
    from tinyres.units import parse_duration

    out.speak_as(process_rank())
    seconds = parse_duration(max_time) if max_time is not None else None
    old = find_run(resume, runs) if resume is not None and process_rank() == 0 else None
    out.log(old.told_again if old else f"data {data}")
    if profile and old is not None:
        raise UsageError("--profile looks at a new training", hint="give the data and recipe, without --resume")
    from tinyres.training import launch

    request = launch.Request(
        data=data,
        recipe=recipe,
        assignments=tuple(assignments or ()),
        init=init,
        split=split,
        name=name,
        seed=seed,
        deterministic=deterministic,
    )
    with launch.processes() as world:
        if profile:
            return _profile(out, request, runs, cache)
        started = launch.begin(request, old, runs=runs, world=world, cache_dir=cache, progress=out)
        options = {"max_seconds": seconds, "strict_resume": strict_resume, "tensorboard": tensorboard}
        return _train(out, started, world, resume=resume is not None, **options)


def _train(out: Console, started: "Started", world: "World | None", **options: Any) -> int:
    from tinyres.errors import EXIT_INTERRUPTED
    from tinyres.training.launch import carry_out, describe_end
    from tinyres.training.train import Options

    result = carry_out(started, Options(**options), world=world, progress=out, copied_to=out.copied_to)
    run = started.run
    out.result(
        {
            "run": run.name,
            "path": str(run.path),
            "stopped": result.stopped,
            "best": result.best and result.best.epoch,
            "summary": result.summary,
        },
        describe_end(started, result),
        *([shell_line("train", "--resume", run.name)] if result.stopped else []),
        *([shell_line("export", run.name)] if result.best is not None else []),
    )
    return EXIT_INTERRUPTED if result.stopped == "interrupted" else 0


def _profile(out: Console, request: "Request", runs: Path, cache: Path | None) -> int:
    import tempfile

    from tinyres.training import launch

    with tempfile.TemporaryDirectory(prefix="tinyres-profile-") as folder:
        started = launch.begin(request, None, runs=runs, home=Path(folder), cache_dir=cache, progress=out)
        out.log(launch.describe(started))
        from tinyres.training.profile import describe, profile

        found = profile(started, progress=out)
    out.result(found, describe(found))
    return 0


@command(
    app,
    "import",
    examples=(
        ("its weights", "tinyres import ResNet34_best.pth"),
        ("with what its training log says", "tinyres import ResNet34_best.pth --history training_history.json"),
    ),
)
def import_(
    out: Console,
    file: Annotated[Path, typer.Argument(help="The seed's state dict, ResNet34_best.pth.")],
    name: RunName = None,
    classes: Annotated[Path | None, typer.Option(help="A class a line; else Tiny ImageNet's for 200.")] = None,
    history: Annotated[Path | None, typer.Option(help="Its training_history.json.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Make a run of the original project's weights."""
    out.log(f"importing {file}")
    from tinyres.seed.importing import import_seed

    run = import_seed(file, runs=runs, name=name, classes=classes, history=history)
    spec = run.config().spec
    assumed = " (taken for Tiny ImageNet's classes)" if classes is None and spec.classes == 200 else ""
    record = {"run": run.name, "path": str(run.path), "classes": spec.classes}
    out.result(record, f"{run.path}: {spec.classes} classes{assumed}", shell_line("export", run.name))


@command(
    app,
    examples=(
        ("the newest run", "tinyres plot"),
        ("two runs beside each other, over minutes", "tinyres plot nano-1 nano-2 --by minutes --out both.png"),
    ),
)
def plot(
    out: Console,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Runs, or a training_history.json; else the newest run.",
            autocompletion=completing.models,
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="What to draw over: epochs, or minutes of training.", autocompletion=offer(completing.AXES)),
    ] = "epochs",
    picture: Annotated[Path | None, typer.Option("--out", help="Else the run's curves.png, or one here.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Draw loss and accuracy of one run, or of several and the original project's history beside each other."""
    from tinyres.errors import UsageError, require_choice

    require_choice("axis", by, completing.AXES)
    if picture is not None and picture.suffix.lower() not in DRAWN:
        raise UsageError(f"--out {picture} names no kind of picture", hint=f"valid endings: {', '.join(DRAWN)}")
    out.log(f"drawing {', '.join(models) if models else 'the newest run'}")
    from tinyres.drawing import draw_curves, find_histories

    histories, home = find_histories(models or [], runs)
    path = picture or (home if len(histories) == 1 and home else Path()) / "curves.png"
    draw_curves(path, histories, by_minutes=by == "minutes")
    named = [name for name in models or [] if not name.endswith(".json")]
    out.result({"picture": str(path), "runs": list(histories)}, f"wrote {path}", shell_line("eval", *named[:1]))
