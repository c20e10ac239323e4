"""The Typer app that the commands join, and what they share: options, and saying which model was taken."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyres.cli import completing
from tinyres.cli.completing import offer
from tinyres.cli.usage import Commands

if TYPE_CHECKING:
    from tinyres.console import Console
    from tinyres.runs import Model

app = typer.Typer(
    cls=Commands,
    name="tinyres",
    help="Train a small image classifier, export it with a proof that it answers like the checkpoint, and measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# One text for one thing, in every command.
ANY_DATA = "tiny-imagenet, shapes, a zip or a folder"
ANY_MODEL = "A run, a checkpoint, an artifact or nano"
Data = Annotated[
    str, typer.Option("--data", help=f"{ANY_DATA}.", show_default=True, autocompletion=offer(completing.DATA))
]
OtherData = Annotated[
    str | None,
    typer.Option("--data", help=f"{ANY_DATA}; else the run's own.", autocompletion=offer(completing.DATA)),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help=f"{ANY_MODEL}; else the newest run.", autocompletion=completing.models),
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


def echo(out: "Console", model: "Model") -> "Model":
    """Say which model was taken: at once, before libraries are loaded that take seconds."""
    out.log(model.told)
    return model
