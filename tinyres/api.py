"""The commands as functions, for programs and notebooks: each calls what its command calls, and returns what was found.

A second front door beside `tinyres.cli`: the two alone reach from tinyres into tinyres.export and tinyres.bench.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, overload

from tinyres.console import Console
from tinyres.environment import process_rank, without_folders
from tinyres.errors import UsageError, as_ours, suggest
from tinyres.files import at_home
from tinyres.runs import Model, Run, find_model, find_run
from tinyres.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from matplotlib.figure import Figure

    from tinyres.bench.results import Results
    from tinyres.export.artifact import Exported
    from tinyres.export.diff import Difference
    from tinyres.export.example import Example
    from tinyres.export.formats import EngineRequest
    from tinyres.export.triton import Repository
    from tinyres.export.verify import Verified
    from tinyres.judge import Judgement
    from tinyres.runtime.metadata import Stored, Target

    AnyPath: TypeAlias = str | Path
    AnyModel: TypeAlias = str | Path | Run | Exported

Axis = Literal["epochs", "minutes"]


@contextmanager
def _errors_as_ours() -> Iterator[None]:
    """A package that is missing and what the system refuses read as on the command line; a defect stays as it is."""
    try:
        yield
    except (ModuleNotFoundError, OSError) as exc:
        raise as_ours(exc) from exc


@_errors_as_ours()
def train(
    data: AnyPath = "tiny-imagenet",
    *,
    recipe: AnyPath | None = None,
    init: AnyModel | None = None,
    split: Literal["val", "holdout"] = "val",
    name: str | None = None,
    seed: int = 0,
    max_time: float | str | None = None,
    resume: str | Path | Run | None = None,
    runs: AnyPath = "runs",
    cache: AnyPath | None = None,
    progress: bool = True,
    **fields: object,
) -> Run:
    """Train a model into runs/NAME, as `tinyres train`, and return the run.

    `data` is a folder of pictures, a zip, `tiny-imagenet` or `shapes`; `init` a model to start from; `max_time` seconds
    or a text like "20m"; `resume` a run to go on with, which keeps its data and recipe. `fields` are the recipe's, as
    `--set` takes them: `epochs=5, widths=(8, 16)`. Ctrl-C finishes the step, saves and returns a run that is `stopped`;
    a second one acts at once.

    Errors: UsageError; DataError, CheckpointError; TrainingError if the loss diverges or memory runs out; StorageError.
    A Ctrl-C before anything was saved is a KeyboardInterrupt, and leaves no run.
    """
    _require_least("seed", seed, 0)
    seconds = parse_duration(max_time) if isinstance(max_time, str) else max_time
    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(f"max_time={seconds} is no length of time", hint="seconds, or for example '20m'")
    out = _listener(progress)
    old = find_run(_name(resume), at_home(str(runs))) if resume is not None and process_rank() == 0 else None
    out.log(old.told_again if old else f"data {data}")
    from tinyres.training import launch

    request = launch.Request(
        data=str(data),
        recipe=None if recipe is None else str(recipe),
        assignments=tuple(f"{field}={json.dumps(value, default=str)}" for field, value in fields.items()),
        init=None if init is None else _name(init),
        split=split,
        name=name,
        seed=seed,
    )
    with launch.processes() as world:
        started = launch.begin(request, old, runs=at_home(str(runs)), world=world, cache_dir=_path(cache), progress=out)
        from tinyres.training.train import Options

        options = Options(max_seconds=seconds, resume=resume is not None)
        launch.carry_out(started, options, world=world, progress=out, copied_to=out.copied_to)
    return started.run


@_errors_as_ours()
def evaluate(
    model: AnyModel | None = None,
    *,
    data: AnyPath | None = None,
    runs: AnyPath = "runs",
    cache: AnyPath | None = None,
    progress: bool = True,
) -> Judgement:
    """Judge a checkpoint or artifact over a whole validation split, as `tinyres eval`.

    `data` stands in for the run's own. Accuracies are shares, 0..1, with 95 % intervals; the confusion is drawn beside
    the model, as `picture` says. Errors: UsageError, DataError, CheckpointError, ArtifactError, BackendUnavailable,
    StorageError.
    """
    out = _listener(progress)
    chosen = _found(model, runs, out)
    from tinyres.judge import judge

    return judge(chosen, _text(data), cache_dir=_path(cache), progress=out)


@overload
def export_model(
    model: AnyModel | None = None,
    *,
    format: Literal["onnx", "trt"] = "onnx",
    precision: Stored | None = None,
    batch: tuple[int, int, int] | None = None,
    data: AnyPath | None = None,
    proof_images: int | None = None,
    target: Target | None = None,
    calibration_images: int | None = None,
    max_accuracy_drop: float | None = None,
    reduced_range: bool = False,
    example: Example | None = None,
    engine: EngineRequest | None = None,
    out: AnyPath | None = None,
    runs: AnyPath = "runs",
    cache: AnyPath | None = None,
    progress: bool = True,
) -> Exported: ...
@overload
def export_model(
    model: AnyModel | None = None,
    *,
    format: Literal["triton"],
    precision: Stored | None = None,
    batch: tuple[int, int, int] | None = None,
    data: AnyPath | None = None,
    proof_images: int | None = None,
    target: Target | None = None,
    calibration_images: int | None = None,
    max_accuracy_drop: float | None = None,
    reduced_range: bool = False,
    out: AnyPath | None = None,
    runs: AnyPath = "runs",
    cache: AnyPath | None = None,
    progress: bool = True,
) -> Repository: ...
@_errors_as_ours()
def export_model(
    model: AnyModel | None = None,
    *,
    format: Literal["onnx", "trt", "triton"] = "onnx",  # noqa: A002 - the option's name
    precision: Stored | None = None,
    batch: tuple[int, int, int] | None = None,
    data: AnyPath | None = None,
    proof_images: int | None = None,
    target: Target | None = None,
    calibration_images: int | None = None,
    max_accuracy_drop: float | None = None,
    reduced_range: bool = False,
    example: Example | None = None,
    engine: EngineRequest | None = None,
    out: AnyPath | None = None,
    runs: AnyPath = "runs",
    cache: AnyPath | None = None,
    progress: bool = True,
) -> Exported | Repository:
    """Convert a checkpoint and prove that the file answers like it, as `tinyres export`; of `triton` a Repository.

    `batch` is least, usual and most, all proven; `out` a folder. `target`, `calibration_images`, `max_accuracy_drop`
    (in points of top-1) and `reduced_range` are int8's; `engine` holds what only engines (`trt`) have. An engine that
    nothing here can run comes back with the grade `unproven`.

    Errors: ProofError if it does not answer like the checkpoint: then nothing is published. BackendUnavailable;
    UsageError, DataError, CheckpointError, ArtifactError, StorageError.
    """
    from tinyres.export import formats
    from tinyres.export.example import EXAMPLES
    from tinyres.export.options import Int8Options, parse_batches
    from tinyres.runtime import metadata

    _require_choice("format", format, get_args(formats.Format))
    _require_choice("precision", precision, get_args(metadata.Stored))
    _require_choice("target", target, get_args(metadata.Target))
    _require_choice("example", example, EXAMPLES)
    if engine is not None:
        from tinyres.export.engine import Runtime

        level = engine.optimization_level
        _require_choice("engine.runtime", engine.runtime, get_args(Runtime))
        _require_choice("engine.optimization_level", level, range(6))
        _require_least("engine.workspace_mb", engine.workspace_mb, 1)
    _require_least("proof_images", proof_images, 1)
    drop = None if max_accuracy_drop is None else max_accuracy_drop / 100
    int8 = {"target": target, "images": calibration_images, "reduced": reduced_range or None, "most_drop": drop}
    asked = {option: value for option, value in int8.items() if value is not None}
    if asked and precision != "int8":
        raise UsageError(
            f"precision={precision!r} has no ranges to calibrate",
            hint="target, calibration_images, max_accuracy_drop and reduced_range are for precision='int8'",
        )
    batches = parse_batches(":".join(map(str, batch))) if batch is not None else None
    listener = _listener(progress)
    chosen = _found(model, runs, listener)
    request = formats.Request(
        format,
        precision,
        Int8Options(**{"target": formats.usual_target(format), **asked}) if asked else None,  # type: ignore[arg-type]
        batches,
        _path(out),
        proof_images,
        _text(data),
        _path(cache),
        engine or formats.EngineRequest(),
        example,
    )
    return formats.export_model(chosen, request, progress=listener)


@_errors_as_ours()
def verify(artifact: AnyPath | Exported, *, backend: str | None = None, progress: bool = True) -> Verified:
    """Prove an artifact again on this machine, from what lies beside it, as `tinyres verify`: without PyTorch and data.

    Errors: ProofError or BackendUnavailable if a level fails; ArtifactError if the file, its certificate or its golden
    vectors are none; UsageError.
    """
    from tinyres.export.verify import verify as verify_artifact

    out = _listener(progress)
    path = at_home(_name(artifact))
    out.log(f"verifying {path}")
    return verify_artifact(path, backend=backend, progress=out)


@_errors_as_ours()
def compare(
    a: AnyModel,
    b: AnyModel,
    *,
    data: AnyPath | None = None,
    runs: AnyPath = "runs",
    cache: AnyPath | None = None,
    progress: bool = True,
) -> Difference:
    """What changed from model `a` to `b`, image by image, as `tinyres diff`.

    The images are those that a's run was judged on, or those of `data`; drawn ones, without labels, where neither is
    here. Errors: UsageError if the two differ in classes or input; DataError, CheckpointError, ArtifactError,
    BackendUnavailable.
    """
    out = _listener(progress)
    first, second = _found(a, runs, out), _found(b, runs, out)
    from tinyres.export.diff import compare as compare_models
    from tinyres.run_data import data_at_hand

    dataset = data_at_hand(first, _text(data), cache_dir=_path(cache), progress=out)
    return compare_models(first.path, second.path, dataset, progress=out)


@_errors_as_ours()
def benchmark(
    model: AnyModel | None = None,
    *,
    backends: Sequence[str] | None = None,
    batch: int | Sequence[int] = (1, 32),
    quick: bool = False,
    threads: int | None = None,
    images: int | None = None,
    data: AnyPath | None = None,
    out: AnyPath | None = None,
    runs: AnyPath = "runs",
    cache: AnyPath | None = None,
    progress: bool = True,
) -> Results:
    """Measure a model's latency beside its accuracy on all `backends`, or those named, as `tinyres bench`.

    It takes 10 minutes at most, `quick` 2 1/2, and writes the reports into the run's bench folder, or `out`. Latencies
    are kept as nanoseconds of single runs, host array in to host logits out. A contender that fails costs its row;
    Ctrl-C returns what was measured until then.

    Errors: BackendUnavailable if nothing can be measured; UsageError, DataError, ArtifactError, ProofError,
    StorageError.
    """
    from tinyres.export.options import parse_sizes

    _require_least("threads", threads, 1)
    _require_least("images", images, 2)
    sizes = parse_sizes(",".join(map(str, [batch] if isinstance(batch, int) else batch)))
    listener = _listener(progress)
    chosen = _found(model, runs, listener)
    from tinyres.bench.measure import EFFORTS, Request, measure

    asked = Request(
        tuple(backends) if backends is not None else None,
        sizes,
        EFFORTS["quick" if quick else "usual"],
        threads,
        images,
        _text(data),
        None,
        (),
        _path(out),
        _path(cache),
    )
    words: dict[str, object] = {"backends": asked.backends, "batch": sizes, "quick": quick}
    words |= {"threads": threads, "images": images, "data": asked.data}
    given = ", ".join([repr(chosen.name), *(f"{word}={value!r}" for word, value in words.items() if value)])
    return measure(chosen, asked, command=without_folders(f"tinyres.benchmark({given})"), progress=listener).results


@_errors_as_ours()
def plot(*models: AnyModel, by: Axis = "epochs", runs: AnyPath = "runs") -> Figure:
    """Loss (cross entropy) and accuracy (%) of trainings beside each other, as `tinyres plot`; nothing is written.

    Runs, or files like training_history.json; without any the newest run. A notebook shows the figure, `savefig` writes
    it. Errors: UsageError without a history, or without times for `minutes`; InputError; BackendUnavailable without
    matplotlib.
    """
    _require_choice("by", by, get_args(Axis))
    from tinyres.drawing import curves_of, find_histories

    histories, _ = find_histories([_name(model) for model in models], at_home(str(runs)))
    return curves_of(histories, by_minutes=by == "minutes")


def _listener(progress: bool) -> Console:
    """The command line's own voice, on stderr; without `progress` for warnings alone."""
    out = Console(quiet=not progress)
    out.speak_as(process_rank())
    return out


def _found(model: AnyModel | None, runs: AnyPath, out: Console) -> Model:
    """What MODEL stands for, said at once: libraries that take seconds to load come after."""
    found = find_model(None if model is None else _name(model), at_home(str(runs)))
    out.log(found.told)
    return found


def _name(model: AnyModel) -> str:
    return str(model if isinstance(model, (str, Path)) else model.path)


def _text(data: AnyPath | None) -> str | None:
    return None if data is None else str(data)


def _path(path: AnyPath | None) -> Path | None:
    return None if path is None else at_home(str(path))


def _require_choice(option: str, value: str | int | None, valid: Iterable[str | int]) -> None:
    valid = list(valid)
    if value is not None and value not in valid:
        raise UsageError(f"{option}={value!r} is none of the choices", hint=suggest(str(value), map(str, valid)))


def _require_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UsageError(f"{option}={value} is too few or too low; valid: {least} or more")
