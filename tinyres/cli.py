"""The command line: each command parses, makes one call into the library, shows the result and returns the exit code.

Heavy imports stand inside the commands, behind their first line of output: `--help` loads neither numpy nor a
framework, and a command says at once what it is about.
"""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyres.command import command
from tinyres.console import Console

if TYPE_CHECKING:
    from tinyres.export.certificate import Level
    from tinyres.launch import Request, Started
    from tinyres.runs import Model
    from tinyres.training.distributed import World

app = typer.Typer(
    name="tinyres",
    help="Train a small image classifier, export it with a proof that it answers like the checkpoint, and measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Start with `tinyres demo`: all of it in minutes, on drawn pictures, without a download.",
)
data_app = typer.Typer(help="Fetch, decode and describe data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Data = Annotated[str, typer.Option("--data", help="tiny-imagenet, shapes, a zip or a folder.", show_default=True)]
OtherData = Annotated[str | None, typer.Option("--data", help="Instead of the run's own data.")]
ModelArgument = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="A run, a checkpoint or an artifact; else the newest run.")
]
Runs = Annotated[Path, typer.Option("--runs", help="Where runs live.")]
Cache = Annotated[Path | None, typer.Option("--cache", help="Where decoded data lives; else TINYRES_CACHE.")]
RUNS = Path("runs")


def _version(wanted: bool) -> None:
    if wanted:
        from tinyres import __version__

        print(f"tinyres {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


@command(data_app)
def prepare(out: Console, data: Data = "tiny-imagenet", image_size: int = 64, cache: Cache = None) -> None:
    """Fetch and decode a data set once, on all cores; training uses the result."""
    from tinyres.data.dataset import open_dataset

    dataset = open_dataset(data, image_size=image_size, cache_dir=cache, progress=out)
    manifest = dataset.manifest
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    out.result(
        manifest,
        f"{data}: {counts} pictures of {len(manifest.class_ids)} classes, {manifest.image_size}x{manifest.image_size};"
        f" {len(manifest.unreadable)} unreadable",
    )


@command(data_app)
def stats(out: Console, data: Data = "tiny-imagenet", image_size: int = 64, cache: Cache = None) -> None:
    """Mean and standard deviation per RGB channel of the training pictures."""
    from tinyres.data.dataset import open_dataset

    statistics = open_dataset(data, image_size=image_size, cache_dir=cache, progress=out).manifest.statistics
    lines = [("mean", statistics.mean), ("std", statistics.std), ("std of all pixels", statistics.std_pixels)]
    text = "\n".join(f"{name:18}{red:.4f}  {green:.4f}  {blue:.4f}" for name, (red, green, blue) in lines)
    out.result(statistics, f"{text}\nstd is the mean of each picture's own: training divides by it, as the seed did")


@command(app)
def recipes(out: Console) -> None:
    """The training recipes, side by side."""
    from tinyres.recipes import RECIPES, describe_recipes

    out.result(list(RECIPES.values()), describe_recipes())


@command(app)
def train(
    out: Console,
    data: Data = "tiny-imagenet",
    recipe: Annotated[str | None, typer.Option(help="See `tinyres recipes`; or the config.json of a run.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Override.")] = None,
    init: Annotated[str | None, typer.Option(metavar="MODEL", help="Start from its weights: fine-tune.")] = None,
    split: Annotated[str, typer.Option(help="val: the data's own; holdout: a tenth of the training pictures.")] = "val",
    max_time: Annotated[str | None, typer.Option(help="Stop cleanly after, for example, 20m.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run; else recipe and number.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run that stopped.")] = None,
    strict_resume: Annotated[bool, typer.Option("--strict-resume", help="Only if bit for bit.")] = False,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits on a GPU, slower.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write runs/NAME/tensorboard.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Only show where a step's time goes.")] = False,
    runs: Runs = RUNS,
    cache: Cache = None,
) -> int:
    """Train a model into runs/NAME; Ctrl-C stops cleanly, --resume goes on."""
    from tinyres.environment import process_rank
    from tinyres.runs import find_run
    from tinyres.units import parse_duration

    out.speak_as(process_rank())
    seconds = parse_duration(max_time) if max_time is not None else None
    old = find_run(resume, runs) if resume is not None else None
    out.log(f"run {old.name} goes on" if old else f"data {data}")
    from tinyres import launch

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
        return _train(out, started, world, resume=old is not None, **options)


def _train(out: Console, started: "Started", world: "World | None", **options: Any) -> int:
    from tinyres.errors import EXIT_INTERRUPTED
    from tinyres.launch import describe, describe_end, kept_if_saved, report_data

    run = started.run
    with kept_if_saved(run), out.copied_to(run.path / "train.log"):
        out.log(describe(started))
        report_data(started, out)
        from tinyres.training.train import Options
        from tinyres.training.train import train as train_run

        result = train_run(
            run,
            started.config,
            started.dataset,
            options=Options(**options),
            start=started.start,
            world=world,
            progress=out,
        )
    out.result(
        {
            "run": run.name,
            "path": str(run.path),
            "stopped": result.stopped,
            "best": result.best and result.best.epoch,
            "summary": result.summary,
        },
        describe_end(started, result),
    )
    return EXIT_INTERRUPTED if result.stopped == "interrupted" else 0


def _profile(out: Console, request: "Request", runs: Path, cache: Path | None) -> int:
    import tempfile

    from tinyres import launch

    with tempfile.TemporaryDirectory(prefix="tinyres-profile-") as folder:
        started = launch.begin(request, None, runs=runs, home=Path(folder), cache_dir=cache, progress=out)
        out.log(launch.describe(started))
        from tinyres.training.profile import describe, profile

        found = profile(started, progress=out)
    out.result(found, describe(found))
    return 0


@command(app, "import")
def import_(
    out: Console,
    file: Annotated[Path, typer.Argument(help="The seed's state dict, ResNet34_best.pth.")],
    name: Annotated[str | None, typer.Option(help="Of the run.")] = None,
    classes: Annotated[Path | None, typer.Option(help="A class a line; else Tiny ImageNet's for 200.")] = None,
    history: Annotated[Path | None, typer.Option(help="Its training_history.json.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Make a run of the original project's weights."""
    from tinyres.importing import import_seed

    run = import_seed(file, runs=runs, name=name, classes=classes, history=history)
    spec = run.config().spec
    assumed = " (taken for Tiny ImageNet's classes)" if classes is None and spec.classes == 200 else ""
    text = f"{run.path}: {spec.classes} classes{assumed}\nnext: tinyres export {run.name}"
    out.result({"run": run.name, "path": str(run.path), "classes": spec.classes}, text)


@command(app, "eval")
def eval_(
    out: Console, model: ModelArgument = None, data: OtherData = None, runs: Runs = RUNS, cache: Cache = None
) -> None:
    """Judge a checkpoint or artifact: top-1, top-5, loss, calibration, class by class, and a confusion picture."""
    from tinyres.runs import find_model

    chosen = _echo(out, find_model(model, runs))
    from tinyres.judge import describe, judge

    judged = judge(chosen, data, cache_dir=cache, progress=out)
    out.result(judged, describe(judged))


@command(app)
def export(
    out: Console,
    model: ModelArgument = None,
    format_: Annotated[str, typer.Option("--format", help="onnx.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32.")] = "fp32",
    batch: Annotated[str, typer.Option(help="Least:usual:most, all proven.")] = "1:32:256",
    proof_images: Annotated[int | None, typer.Option(min=1, help="Judged on so many.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Else the run's export folder.")] = None,
    data: OtherData = None,
    runs: Runs = RUNS,
    cache: Cache = None,
) -> None:
    """Convert a checkpoint and prove that the artifact answers like it; exit code 3 if it does not."""
    from tinyres.errors import require_choice
    from tinyres.export.options import parse_batches
    from tinyres.runs import find_model

    require_choice("format", format_, ["onnx"])
    require_choice("precision", precision, ["fp32"])
    batches = parse_batches(batch)
    chosen = _echo(out, find_model(model, runs))
    from tinyres.export.pipeline import export_onnx
    from tinyres.judge import data_at_hand

    exported = export_onnx(
        chosen.path,
        (folder or chosen.home / "export") / f"{precision}.onnx",
        dataset=data_at_hand(chosen, data, cache_dir=cache, progress=out),
        batches=batches,
        proof_images=proof_images,
        cache_dir=cache,
        progress=out,
    )
    levels = _levels(exported.certificate.levels)
    next_ = (
        f"next: tinyres bench {chosen.run.name}"
        if chosen.run
        else f"next: tinyres predict IMAGE --model {exported.path}"
    )
    text = f"{exported.path}: proven ({exported.certificate.grade})\n{levels}\n{next_}"
    out.result({"artifact": str(exported.path), "certificate": exported.certificate}, text)


@command(app)
def verify(
    out: Console,
    artifact: Annotated[Path, typer.Argument(help="An exported file, with what lies beside it.")],
    backend: Annotated[str | None, typer.Option(help="Else the usual one for the file.")] = None,
) -> None:
    """Prove an artifact again on this machine, from its golden vectors, without PyTorch; exit code 3 if it fails."""
    out.log(f"verifying {artifact}")
    from tinyres.export.verify import verify as verify_artifact

    verified = verify_artifact(artifact, backend=backend, progress=out)
    answer = {"artifact": str(artifact), "levels": verified.levels}
    out.result(answer, f"{artifact}: proven again here\n{_levels(verified.levels)}")


@command(app)
def diff(
    out: Console,
    a: Annotated[str, typer.Argument(metavar="A", help="An artifact, a run or a checkpoint.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    data: Annotated[str | None, typer.Option("--data", help="Instead of the data of A's run.")] = None,
    runs: Runs = RUNS,
    cache: Cache = None,
) -> None:
    """What changed between two models: flipped images with their margins, and accuracy with its paired interval."""
    from tinyres.runs import find_model

    first, second = _echo(out, find_model(a, runs)), _echo(out, find_model(b, runs))
    from tinyres.export.diff import compare, describe
    from tinyres.judge import data_at_hand

    dataset = data_at_hand(first, data, cache_dir=cache, progress=out)
    found = compare(first.path, second.path, dataset, progress=out)
    out.result(found, describe(found))


@command(app)
def info(
    out: Console, path: Annotated[Path, typer.Argument(help="A run, cache, checkpoint, artifact or record.")]
) -> None:
    """Say what a file or folder is."""
    out.log(f"reading {path}")
    from tinyres.describe import describe

    found = describe(path)
    out.result(found, f"{path}: {found.kind}\n{found.text()}")


@command(app)
def doctor(out: Console, cache: Cache = None) -> int:
    """What this machine can do, what is missing, and the command that mends it; exit code 1 if something is wrong."""
    from tinyres.doctor import describe, examine

    findings = examine(cache)
    out.result(findings, describe(findings))
    return 1 if any(found.state == "problem" for found in findings) else 0


@command(app)
def predict(
    out: Console,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files.")],
    model: Annotated[str | None, typer.Option(help="A run, an artifact or a checkpoint.")] = None,
    top: Annotated[int, typer.Option(min=1, help="So many classes.")] = 5,
    runs: Runs = RUNS,
) -> None:
    """Classify pictures with the newest run's artifact, without PyTorch."""
    from tinyres.runs import find_artifact

    path = find_artifact(model, runs)
    out.log(f"the newest run: {path}" if model is None else f"model: {path}")
    from tinyres.runtime import Classifier

    with Classifier(path, top=top) as classifier:
        predictions = classifier(images)
    lines = []
    for image, prediction in zip(images, predictions, strict=True):
        lines.append(str(image))
        lines += [f"  {guess.probability:6.1%}  {guess.name}" for guess in prediction.best]
    out.result([{"image": str(i), "best": p.best} for i, p in zip(images, predictions, strict=True)], "\n".join(lines))


@command(app)
def bench(
    out: Console,
    model: ModelArgument = None,
    backends: Annotated[str | None, typer.Option(help="With commas; else all there are.")] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,32",
    quick: Annotated[bool, typer.Option("--quick", help="A third of the time, wider intervals.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="For each; else all cores.")] = None,
    data: OtherData = None,
    runs: Runs = RUNS,
    cache: Cache = None,
) -> int:
    """Measure latency beside accuracy, every backend in turns; writes runs/NAME/bench."""
    from tinyres.export.options import parse_sizes
    from tinyres.runs import find_model

    sizes = parse_sizes(batch)
    chosen = _echo(out, find_model(model, runs))
    from tinyres.bench import schedule
    from tinyres.bench.contenders import find_contenders
    from tinyres.bench.report import terminal, write_reports
    from tinyres.bench.run import run_bench
    from tinyres.environment import command_line
    from tinyres.judge import data_of

    contenders = find_contenders(chosen, backends.split(",") if backends else None)
    results = run_bench(
        contenders,
        data_of(chosen, data, cache_dir=cache, progress=out),
        run=chosen.name,
        batches=sizes,
        effort=schedule.QUICK if quick else schedule.DEFAULT,
        threads=threads,
        command=command_line(),
        progress=out,
    )
    paths = write_reports(chosen.home / "bench", results)
    out.result(results, "\n\n".join([terminal(results), "\n".join(f"wrote {path}" for path in paths)]))
    return 1 if any(row.status == "failed" for row in results.rows) else 0


@command(app)
def plot(
    out: Console,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Runs, or a training_history.json; else the newest."),
    ] = None,
    by: Annotated[str, typer.Option(help="What to draw over: epochs, or minutes of training.")] = "epochs",
    picture: Annotated[Path | None, typer.Option("--out", help="Else the run's curves.png, or one here.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Draw loss and accuracy of one run, or of several and the original project's history beside each other."""
    from tinyres.errors import require_choice

    require_choice("axis", by, ["epochs", "minutes"])
    out.log(f"drawing {', '.join(models) if models else 'the newest run'}")
    from tinyres.plot import draw_curves, find_histories

    histories, home = find_histories(models or [], runs)
    path = picture or (home if len(histories) == 1 and home else Path()) / "curves.png"
    draw_curves(path, histories, by_minutes=by == "minutes")
    out.result({"picture": str(path), "runs": list(histories)}, f"wrote {path}")


@command(app)
def demo(out: Console, runs: Runs = RUNS, cache: Cache = None) -> int:
    """All of it in minutes: train on drawn shapes, export, prove, bench and predict, into runs/demo."""
    from tinyres.demo import draw_star, walk
    from tinyres.files import remove
    from tinyres.runs import DEMO_RUN

    remove(home := runs / DEMO_RUN)
    steps: dict[str, Callable[[], int | None]] = {
        "train a small network on drawn shapes": lambda: train(
            out, data="shapes", recipe="demo", name=DEMO_RUN, runs=runs, cache=cache
        ),
        "export it to ONNX and prove that it answers alike": lambda: export(out, DEMO_RUN, runs=runs, cache=cache),
        "measure PyTorch and ONNX Runtime side by side": lambda: bench(
            out, DEMO_RUN, quick=True, runs=runs, cache=cache
        ),
        "classify a picture without PyTorch": lambda: predict(
            out, [draw_star(home / "star.png")], DEMO_RUN, top=3, runs=runs
        ),
    }
    return walk(out, home, steps)


def _levels(levels: "tuple[Level, ...]") -> str:
    return "\n".join(f"  {level.name:12} {level.detail}" for level in levels)


def _echo(out: Console, model: "Model") -> "Model":
    """Say which model was taken: at once, before libraries are loaded that take seconds."""
    out.log(f"the newest run: {model.name}" if model.chosen else f"model: {model.name} ({model.path.name})")
    return model


def main() -> None:
    """The entry point."""
    app()
