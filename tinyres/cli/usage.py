"""What Typer itself refuses (an unknown command or option, a value of another kind), told like every other error.

It reads only what Typer's exceptions have had in all its versions; a message that it does not know is passed on.
"""

from __future__ import annotations

import re
import sys
import traceback
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from tinyres.cli.teaching import Examples, in_order, shown
from tinyres.console import Console
from tinyres.errors import UsageError, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REFUSED: type[Any] = typer.BadParameter.__mro__[1]
"""The base of what a parser raises: click's UsageError, which newer versions of Typer bring under another name."""
_SUGGESTIONS = re.compile(r"\.? Did you mean .*\?$| \(Possible options: .*\)$|\.$")


class Group(TyperGroup):
    """A group of commands in the order of the path, whose help ends with examples."""

    examples: Examples = ()

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of help and hints."""
        return in_order(super().list_commands(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the examples."""
        super().format_help(ctx, formatter)
        formatter.write(shown(self.examples))


class Commands(Group):
    """All commands; what is refused is one line, a hint and the exit code."""

    examples = (
        ("all of it in minutes, on drawn pictures, without a download", "tinyres demo"),
        ("classify a picture with a trained model that comes along", "tinyres predict cat.jpg --model nano"),
        ("train on a folder of pictures per class", "tinyres train --data photos --init nano"),
        ("what this machine can do, and what is missing", "tinyres doctor"),
    )

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that `args` name and leave the process with its exit code."""
        words = sys.argv[1:] if args is None else list(args)
        names = (args, prog_name, complete_var)
        if not standalone_mode:
            return super().main(*names, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
        out = Console(json="--json" in words)
        try:
            code = super().main(*names, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
        except REFUSED as exc:
            if type(exc).__name__ == "NoArgsIsHelpError":  # its message is the help itself
                exc.show()
                sys.exit(exc.exit_code)
            if "--debug" in words:
                traceback.print_exc()
            code = out.fail(as_ours(exc, words, self.commands))
        except typer.Abort:
            code = out.interrupted()
        sys.exit(code if isinstance(code, int) else 0)


def as_ours(refused: Any, words: Sequence[str], commands: Iterable[str]) -> UsageError:
    """The error for what Typer `refused` of the `words` typed."""
    context = refused.ctx
    message = " ".join(_SUGGESTIONS.sub("", refused.format_message()).split())
    typed = next((f"tinyres {word}" for word in words[:1] if word in commands), "tinyres")
    listed = f"{context.command_path if context is not None else typed} --help lists what is valid"
    if context is not None and (match := re.fullmatch(r"No such command (['\"])(.*)\1", message)):
        return UsageError(message, hint=suggest(match[2], context.command.list_commands(context)))
    if context is not None and (name := getattr(refused, "option_name", "")) and message.startswith("No such option"):
        known = [option for parameter in context.command.params for option in parameter.opts if option[:2] == "--"]
        close = [f"did you mean {option}? " for option in get_close_matches(name, known, n=1)]
        return UsageError(message, hint="".join(close) + listed)
    options = [option for option in getattr(getattr(refused, "param", None), "opts", []) if option.startswith("-")]
    if options and message.startswith("Invalid value"):
        what = message.partition(": ")[2]
        message = f"{options[0]} {_value_of(options, words)!r}: {what[:1].lower()}{what[1:]}"
    return UsageError(message, hint=listed)


def _value_of(options: Sequence[str], words: Sequence[str]) -> str:
    """What was typed for an option by any of its names; the last counts."""
    value = ""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, attached = word.partition("=")
        if name in options:
            value = attached if equals else after
    return value
