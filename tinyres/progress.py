"""How long work says where it is: a small protocol that the library calls and the command line draws.

The library never prints; without a listener it is silent.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Task(Protocol):
    """One running piece of work."""

    def advance(self, count: int = 1, note: str = "", left_s: float | None = None) -> None:
        """`count` more units are done; `note` is a few words on the state (a loss, a rate).

        `left_s` is how long the rest takes, where that does not go by the units.
        """


class Progress(Protocol):
    """A listener to long work."""

    def log(self, text: str) -> None:
        """One line for the user."""

    def warn(self, text: str) -> None:
        """One line the user should act on."""

    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> AbstractContextManager[Task]:
        """Announce work of `total` units, of which `done` were done before."""


class Silent:
    """The listener that draws nothing."""

    def log(self, text: str) -> None:
        """Ignore it."""

    def warn(self, text: str) -> None:
        """Ignore it."""

    def advance(self, count: int = 1, note: str = "", left_s: float | None = None) -> None:
        """Ignore it."""

    @contextmanager
    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Iterator[Task]:
        """Run the work unseen."""
        yield self
