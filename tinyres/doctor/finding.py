"""One thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what mends it."""

    name: str
    state: State
    """A note is worth knowing; a problem makes something fail."""
    detail: str
    mend: str = ""
    """A command or an advice; empty if there is nothing to do."""
