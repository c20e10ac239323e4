"""Measure a model in all its forms."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import shutil
from pathlib import Path
from typing import Annotated

import typer

from tinyres.cli.command import command
from tinyres.cli.root import RUNS, Cache, ModelArgument, OtherData, Runs, app, echo
from tinyres.console import Console
from tinyres.errors import UsageError

CI = "Continuous integration"


@command(app)
def bench(
    out: Console,
    model: ModelArgument = None,
    backends: Annotated[str | None, typer.Option(help="With commas; else all there are.")] = None,
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
    from tinyres.export.options import parse_sizes
    from tinyres.runs import find_model

    if quick and thorough:
        raise UsageError("--quick and --thorough exclude each other", hint="leave one of them out")
    sizes = tuple(parse_sizes(batch))
    chosen = echo(out, find_model(model, runs))
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
    out.result(measured.results, describe(measured, min(shutil.get_terminal_size().columns, 120)))
    for failure in measured.failures:
        out.warn(f"--fail-if {failure}")
    return measured.exit_code
