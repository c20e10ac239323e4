"""Measure a model in all its forms."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import shutil
from pathlib import Path
from typing import Annotated

import typer

from tinyres.cli import completing
from tinyres.cli.command import command
from tinyres.cli.root import RUNS, Cache, ModelArgument, OtherData, Runs, app, echo
from tinyres.console import Console, shell_line
from tinyres.errors import UsageError

CI = "Continuous integration"


@command(
    app,
    examples=(
        ("the newest run, every backend here", "tinyres bench"),
        ("shorter, on two backends", "tinyres bench nano --quick --backends onnxruntime-cpu,openvino"),
        ("against an earlier one, on this machine", "tinyres bench nano --against runs/nano/bench/results.json"),
        ("fail a build that is too slow", "tinyres bench nano --quick --fail-if 'p50>20ms'"),
    ),
)
def bench(
    out: Console,
    model: ModelArgument = None,
    backends: Annotated[
        str | None,
        typer.Option(help="Names with commas; else all there are.", autocompletion=completing.backends),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,32",
    quick: Annotated[bool, typer.Option("--quick", help="2 1/2 minutes at most: fewer runs and contenders.")] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="As long as it takes, else 10 minutes.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="For each; else all cores.")] = None,
    images: Annotated[
        int | None, typer.Option(min=2, help="For accuracy, however long it takes.", show_default="1000, or fewer")
    ] = None,
    data: OtherData = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Else the run's bench folder.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="results.json of an earlier bench, here.", rich_help_panel=CI)
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="'p50>5ms', 'accuracy<0.6', 'slower-than-baseline'; repeatable.", rich_help_panel=CI),
    ] = None,
    runs: Runs = RUNS,
    cache: Cache = None,
) -> int:
    """Measure latency beside accuracy, every backend in turns; writes runs/NAME/bench. Ctrl-C keeps what there is."""
    from tinyres.runs import find_model

    if quick and thorough:
        raise UsageError("--quick and --thorough exclude each other", hint="leave one of them out")
    chosen = echo(out, find_model(model, runs))
    from tinyres.export.options import parse_sizes

    sizes = tuple(parse_sizes(batch))
    from tinyres.bench.measure import EFFORTS, Request, describe, measure
    from tinyres.environment import command_line

    asked = Request(
        tuple(backends.split(",")) if backends else None,
        sizes,
        EFFORTS["quick" if quick else "thorough" if thorough else "usual"],
        threads,
        images,
        data,
        against,
        tuple(fail_if or ()),
        folder,
        cache,
    )
    measured = measure(chosen, asked, command=command_line(), progress=out)
    width = min(shutil.get_terminal_size().columns, 120)
    again = shell_line("bench", model or chosen.name, "--against", measured.reports[0])
    out.result(measured.results, describe(measured, width), *([] if measured.failures else [again]))
    for failure in measured.failures:
        out.warn(f"--fail-if {failure}")
    return measured.exit_code
