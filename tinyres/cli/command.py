"""How every command runs: the options all share, errors as one line with an exit code, Ctrl-C as 130."""

from __future__ import annotations

import functools
import inspect
import os
import traceback
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tinyres.cli.teaching import panel_of, with_examples
from tinyres.console import Console
from tinyres.errors import as_ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinyres.cli.teaching import Examples

Function = TypeVar("Function", bound="Callable[..., int | None]")

_SHARED = {
    "json_output": (
        Annotated[
            bool, typer.Option("--json", help="The result as JSON on stdout (docs/json.md).", rich_help_panel="Output")
        ],
        False,
    ),
    "quiet": (
        Annotated[
            bool,
            typer.Option(
                "--quiet", "-q", help="No progress and no next step, only the result.", rich_help_panel="Output"
            ),
        ],
        False,
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output")],
        False,
    ),
}


def command(app: typer.Typer, name: str | None = None, *, examples: Examples) -> Callable[[Function], Function]:
    """Register a function as a command of `app`: it gets the Console first and returns an exit code or None.

    `examples` end its help. The function itself is left as it is, so that commands can be joined.
    The function's own annotations must be objects, not strings: Typer reads them.
    """

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            out = Console(json=arguments.pop("json_output"), quiet=arguments.pop("quiet"), debug=arguments.pop("debug"))
            raise typer.Exit(run_guarded(out, lambda: function(out, **arguments)))

        own = list(inspect.signature(function).parameters.values())[1:]
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for key, (kind, default) in _SHARED.items()
        ]
        run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
        shown_in = panel_of(name or function.__name__)
        app.command(name, cls=with_examples(examples), rich_help_panel=shown_in)(run)
        return function

    return register


def run_guarded(out: Console, work: Callable[[], int | None]) -> int:
    """Run `work`; return its exit code, or that of the error it ended with."""
    try:
        return work() or 0
    except KeyboardInterrupt:
        return out.interrupted()
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); nothing more can be said there, and that is no failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as exc:  # noqa: BLE001 - the last line of defence: a defect of ours is one line too
        if out.debug:
            traceback.print_exc()
        return out.fail(as_ours(exc))
