"""Trained weights that come with the package: each folder here is that of a run, with its last epoch's weights alone.

`tinyres.export.ship` makes one of a finished run. `NOTICE.md` in each says what it was trained on.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    """Of all that are here."""
    return sorted(path.parent.name for path in HERE.glob("*/config.json"))


def folder(name: str) -> Path | None:
    """The folder of the weights called `name`; None if there are none."""
    return HERE / name if name in names() else None
