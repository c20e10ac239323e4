"""Models: judge, export, prove, compare, measure and use them."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import sys
from pathlib import Path
from typing import Annotated

import typer

from tinyres.cli import completing
from tinyres.cli.command import command
from tinyres.cli.completing import offer
from tinyres.cli.exporting import levels_text
from tinyres.cli.root import ANY_MODEL, RUNS, Cache, ModelArgument, OtherData, Runs, app, echo
from tinyres.console import Console, shell_line
from tinyres.errors import UsageError


@command(
    app,
    "eval",
    examples=(
        ("the newest run, on its own data", "tinyres eval"),
        ("a trained model that comes along", "tinyres eval nano --data tiny-imagenet-200.zip"),
        ("an exported file", "tinyres eval runs/nano/export/fp32.onnx --data tiny-imagenet-200.zip"),
    ),
)
def eval_(
    out: Console, model: ModelArgument = None, data: OtherData = None, runs: Runs = RUNS, cache: Cache = None
) -> None:
    """Judge a checkpoint or artifact: top-1, top-5, loss, calibration, class by class, and a confusion picture."""
    from tinyres.runs import find_model

    chosen = echo(out, find_model(model, runs))
    from tinyres.judge import describe, judge

    judged = judge(chosen, data, cache_dir=cache, progress=out)
    is_checkpoint = chosen.path.suffix == ".safetensors"
    out.result(judged, describe(judged), shell_line("export" if is_checkpoint else "bench", model or chosen.name))


@command(
    app,
    examples=(
        ("an exported file, on this machine", "tinyres verify runs/nano/export/fp32.onnx"),
        ("on another backend", "tinyres verify runs/nano/export/fp32.onnx --backend openvino"),
    ),
)
def verify(
    out: Console,
    artifact: Annotated[Path, typer.Argument(help="An exported file, with what lies beside it.")],
    backend: Annotated[
        str | None,
        typer.Option(help="Else the usual one for the file.", autocompletion=offer(completing.BACKENDS)),
    ] = None,
) -> None:
    """Prove an artifact again on this machine, from its golden vectors, without PyTorch; exit code 3 if it fails."""
    out.log(f"verifying {artifact}")
    from tinyres.export.verify import verify as verify_artifact

    verified = verify_artifact(artifact, backend=backend, progress=out)
    answer = {"artifact": str(verified.path), "levels": verified.levels}
    again = "proven again here" if verified.path == artifact else "proven here for the first time"
    use = shell_line("predict", "PICTURE", "--model", verified.path)
    out.result(answer, f"{verified.path}: {again}\n{levels_text(verified.levels)}", use)


@command(
    app,
    examples=(
        ("what the exported file changes", "tinyres diff nano runs/nano/export/fp32.onnx"),
        ("what int8 changes, on real pictures", "tinyres diff nano runs/nano/export/int8-cpu.onnx --data photos"),
    ),
)
def diff(
    out: Console,
    a: Annotated[str, typer.Argument(metavar="A", help=f"{ANY_MODEL}.", autocompletion=completing.models)],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.", autocompletion=completing.models)],
    data: OtherData = None,
    runs: Runs = RUNS,
    cache: Cache = None,
) -> None:
    """What changed between two models: flipped images with their margins, and accuracy with its paired interval.

    The data is that of A's run, where --data names no other.
    """
    from tinyres.runs import find_model

    first, second = echo(out, find_model(a, runs)), echo(out, find_model(b, runs))
    from tinyres.export.diff import compare, describe
    from tinyres.run_data import data_at_hand, load_spec

    dataset = data_at_hand(first, data, cache_dir=cache, progress=out)
    found = compare(first.path, second.path, dataset, progress=out)
    out.result(found, describe(found, load_spec(first).class_names), shell_line("bench", b))


@command(
    app,
    examples=(
        ("a picture, by the newest run", "tinyres predict cat.jpg"),
        ("a trained model that comes along, the three best classes", "tinyres predict cat.jpg --model nano --top 3"),
        ("a folder, as a line of JSON a picture", "tinyres predict photos/val --model nano --jsonl"),
        ("a picture from a pipe", "tinyres predict - --model nano < cat.jpg"),
    ),
)
def predict(
    out: Console,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Files, folders, patterns in quotes, or - for a picture on stdin."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help=f"{ANY_MODEL}; else the newest run.", autocompletion=completing.models),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="So many classes, the likeliest first.")] = 5,
    files_from: Annotated[str | None, typer.Option(help="A file of names, one a line; - is stdin.")] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="A line of JSON a picture, as it is answered.", rich_help_panel="Output")
    ] = False,
    runs: Runs = RUNS,
) -> int:
    """Classify pictures with the newest run's artifact, without PyTorch.

    Pictures that cannot be read are named, the others answered; the exit code is then 2.
    """
    if jsonl and out.json:
        raise UsageError("--jsonl is a line a picture, --json one text for all", hint="leave one of them out")
    from tinyres.exported import doubt_of, find_artifact
    from tinyres.runs import find_model

    chosen = echo(out, find_model(model, runs))
    path = find_artifact(chosen)
    if path != chosen.path:
        out.log(f"answers: {path}")
    elif chosen.how != "file":
        out.log("answers: the checkpoint, through PyTorch")
    doubt = doubt_of(path) if path.suffix != ".safetensors" else ""
    if doubt:
        out.warn(f"{doubt}: nothing says that it answers like its checkpoint")
    from tinyres.cli.asked import answers, asked_pictures
    from tinyres.runtime import Classifier
    from tinyres.units import counted

    asked = asked_pictures(images or [], files_from)
    if asked.unread:
        out.warn(f"{counted(asked.unread, 'file')} left out: HEIC and the like are not read; convert to JPEG or PNG")
    shown = 0 if sys.stdout.isatty() else asked.count  # no bar among the answers
    kept, failed = [], 0
    with Classifier(path, top=top) as classifier, out.task("classifying", shown, "pictures") as task:
        for answer in answers(classifier, asked):
            task.advance()
            if answer.error is not None:
                failed += 1
                out.fail(answer.error)
            if jsonl:
                out.line(answer.record())
            elif out.json:
                kept.append(answer.record())
            elif answer.error is None:
                out.result(None, answer.text())
    if len(kept) > failed:
        out.result(kept, "")
    if not jsonl and not doubt:  # on stderr: stdout is the answers'
        out.advise(shell_line("bench" if path.suffix != ".safetensors" else "export", model or chosen.name))
    return UsageError.exit_code if failed else 0
