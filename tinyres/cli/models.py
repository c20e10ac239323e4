"""Models: judge, export, prove, compare, measure and use them."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import sys
from pathlib import Path
from typing import Annotated

import typer

from tinyres.cli.command import command
from tinyres.cli.exporting import levels_text
from tinyres.cli.root import RUNS, Cache, ModelArgument, OtherData, Runs, app, echo
from tinyres.console import Console
from tinyres.errors import UsageError


@command(app, "eval")
def eval_(
    out: Console, model: ModelArgument = None, data: OtherData = None, runs: Runs = RUNS, cache: Cache = None
) -> None:
    """Judge a checkpoint or artifact: top-1, top-5, loss, calibration, class by class, and a confusion picture."""
    from tinyres.runs import find_model

    chosen = echo(out, find_model(model, runs))
    from tinyres.judge import describe, judge

    judged = judge(chosen, data, cache_dir=cache, progress=out)
    out.result(judged, describe(judged))


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
    answer = {"artifact": str(verified.path), "levels": verified.levels}
    again = "proven again here" if verified.path == artifact else "proven here for the first time"
    out.result(answer, f"{verified.path}: {again}\n{levels_text(verified.levels)}")


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

    first, second = echo(out, find_model(a, runs)), echo(out, find_model(b, runs))
    from tinyres.export.diff import compare, describe
    from tinyres.run_data import data_at_hand

    dataset = data_at_hand(first, data, cache_dir=cache, progress=out)
    found = compare(first.path, second.path, dataset, progress=out)
    out.result(found, describe(found))


@command(app)
def predict(
    out: Console,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Files, folders, patterns in quotes, or - for a picture on stdin."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A run, an artifact or a checkpoint.")] = None,
    top: Annotated[int, typer.Option(min=1, help="So many classes.")] = 5,
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
    from tinyres.runs import find_artifact, find_model

    chosen = echo(out, find_model(model, runs))
    path = find_artifact(chosen)
    if path != chosen.path:
        out.log(f"answers: {path}")
    elif chosen.how != "file":
        out.log(f"answers: the checkpoint, through PyTorch; tinyres export {chosen.name} makes an artifact of it")
    from tinyres.cli.asked import answers, asked_pictures
    from tinyres.runtime import Classifier

    asked = asked_pictures(images or [], files_from)
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
    return UsageError.exit_code if failed else 0
