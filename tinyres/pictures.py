"""Which files are pictures, by their names alone: of a folder, a pattern, or a list. It opens none."""

from __future__ import annotations

import glob
import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def is_picture(name: str | PurePath) -> bool:
    """Whether a file has a picture's suffix."""
    return PurePath(name).suffix.lower() in PICTURE_SUFFIXES


def find_pictures(names: Iterable[str | Path]) -> Iterator[Path]:
    """The files meant by `names`: a folder's pictures, also in the folders within, and what matches a pattern.

    A name that leads to nothing comes back as it is, so that whoever opens it says so. Order: as named, then sorted.
    """
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = list(pictures_in(path))
        elif not path.exists() and glob.has_magic(str(name)):
            matches = sorted(glob.glob(str(name), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            found = [Path(match) for match in matches if Path(match).is_file()]
        else:
            found = [path]
        yield from found or [path]


def pictures_in(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and the folders within, sorted, one folder's names in memory at a time; none hidden."""
    for home, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if is_picture(name) and not name.startswith("."):
                yield Path(home, name)
