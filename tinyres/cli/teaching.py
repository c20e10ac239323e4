"""Help that teaches: the order in which commands are shown, by the path a model goes, and examples to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

if TYPE_CHECKING:
    from collections.abc import Iterable

Examples = tuple[tuple[str, str], ...]
"""What each does, and the line to type. A test runs the parser over every one."""

PATH = {
    "Make": ("train", "import", "data"),
    "Prove": ("export", "verify", "diff", "eval"),
    "Use": ("predict", "bench"),
    "Look": ("info", "plot", "recipes", "doctor", "demo"),
}
"""The panels of the root's help, and the commands in each."""


def panel_of(name: str) -> str | None:
    """Where the root's help shows a command; None for a command of a group."""
    return next((panel for panel, names in PATH.items() if name in names), None)


def in_order(names: Iterable[str]) -> list[str]:
    """Commands as a model meets them; others after those."""
    known = [name for names_ in PATH.values() for name in names_]
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def with_examples(text: Examples) -> type[TyperCommand]:
    """The class of a command whose help ends with these examples."""

    class Taught(TyperCommand):
        examples = text

        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            formatter.write(shown(text))

    return Taught


def shown(examples: Examples) -> str:
    """The examples as plain lines without a frame, so that a whole line can be copied."""
    lines = [f"   {what}:\n     {line}\n" for what, line in examples]
    return "".join([" Examples\n", *lines])
