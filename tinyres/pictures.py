"""Which files are pictures, by their names alone: of a folder, a pattern, or a list. It opens none."""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".psd", ".svg")
"""Pictures that Pillow alone does not read: whoever has some should know that they are left out."""


def is_picture(name: str | PurePath) -> bool:
    """Whether a file has a picture's suffix."""
    return PurePath(name).suffix.lower() in PICTURE_SUFFIXES


def find_pictures(names: Iterable[str | Path]) -> Iterator[Path]:
    """The files meant by `names`: a folder's pictures, also in the folders within, and what matches a pattern.

    A name that leads to nothing comes back as it is, so that whoever opens it says so. Order: as named, then sorted.
    """
    for name in names:
        found: Iterator[Path] = iter(())
        if os.path.isdir(name):  # noqa: PTH112 - Path's own raises for a name that is too long or may not be looked at
            found = pictures_in(Path(name))
        elif glob.has_magic(str(name)) and "\0" not in str(name) and not os.path.exists(name):  # noqa: PTH110 - as above
            matches = sorted(glob.glob(str(name), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            found = (Path(match) for match in matches if not os.path.isdir(match))  # noqa: PTH112
        first = next(found, Path(name))
        yield first
        yield from found


def count_unread(name: str) -> int:
    """How many files in a folder of that name, and in those within, are pictures of a format that is not read."""
    if not os.path.isdir(name):  # noqa: PTH112 - as above
        return 0
    count = 0
    for _, folders, files in os.walk(name):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        count += sum(PurePath(file).suffix.lower() in UNREAD_SUFFIXES and not file.startswith(".") for file in files)
    return count


def _never_ends(path: Path) -> bool:
    """Whether it is a pipe or a device: named as such it is read, but nobody means one by a folder."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError):  # its opener says what is wrong
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def pictures_in(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and the folders within, sorted, one folder's names in memory at a time; none hidden.

    A folder that may not be read comes back itself, so that its opener says so.
    """
    closed: list[OSError] = []
    for home, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(home, name)
            if is_picture(name) and not name.startswith(".") and not _never_ends(path):
                yield path
    yield from (Path(error.filename) for error in closed)
