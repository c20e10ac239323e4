"""The errors that a user can meet: docs/errors.md is the table of them, and this reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "errors.md"


@dataclass(frozen=True)
class Case:
    """A command, or an expression of the Python API, and the error it ends in."""

    command: str
    where: str
    """A package that must be here, or `without` one that must not."""
    message: str
    """As it reads; … stands for what differs from machine to machine."""
    code: int
    mend: str
    """The hint, or in italics what is plain without one."""

    @property
    def hint(self) -> str:
        return "" if self.mend.startswith("*") else re.sub(r"\\(.)", r"\1", self.mend)

    @property
    def is_python(self) -> bool:
        return not self.command.startswith("tinyres ")


def cases() -> list[Case]:
    """The rows of all tables of cases, in order."""
    rows = re.findall(
        r"^\| `(.*)`(?: \((.*)\))? \| `(.*)` \| (\d+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [Case(command, where, message, int(code), mend) for command, where, message, code, mend in rows]
