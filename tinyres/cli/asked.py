"""What `tinyres predict` was asked: the pictures behind names, folders, patterns and stdin, and each one's answer."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres.decode import MAX_BYTES
from tinyres.errors import ImageError, InputError, UsageError
from tinyres.harmless import shown
from tinyres.pictures import count_unread, find_pictures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tinyres.runtime.classifier import Classifier, Guess

STDIN = "-"
LONGEST_NAME = 65_536
"""In bytes; no system knows longer ones, and a line without end must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One picture's."""

    image: str
    """As it was named."""
    best: tuple[Guess, ...] = ()
    """Best first; empty where there is an error."""
    error: ImageError | None = None

    def text(self) -> str:
        """For people."""
        return "\n".join([shown(self.image), *(f"  {guess.probability:6.1%}  {guess.name}" for guess in self.best)])

    def record(self) -> dict[str, object]:
        """For programs."""
        return (
            {"image": self.image, "error": str(self.error)} if self.error else {"image": self.image, "best": self.best}
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """Pictures by their names."""

    pictures: Iterable[Path | bytes]
    count: int
    """0 where the names are still to come."""
    unread: int = 0
    """Files in the folders that are pictures of formats that are not read."""


def asked_pictures(names: list[str], names_from: str | None) -> Asked:
    """The pictures that `names` mean, or those listed in the file `names_from`, read line by line; `-` is stdin.

    Errors: UsageError if nothing is named, or both; InputError if the list cannot be read.
    """
    if names_from is not None:
        if names:
            raise UsageError("pictures are named twice: as arguments and by --files-from", hint="leave one of them out")
        return Asked(find_pictures(_lines(names_from)), 0)
    if not names:
        raise UsageError("no picture is named", hint="tinyres predict FILE, a folder, 'a/*.jpg', or - for stdin")
    if STDIN in names:
        if len(names) > 1:
            raise UsageError("- is the one picture on stdin, and takes no other beside it", hint="leave the others out")
        return Asked([_picture_on_stdin()], 1)
    pictures = list(find_pictures(names))
    return Asked(pictures, len(pictures), sum(map(count_unread, names)))


def answers(classifier: Classifier, asked: Asked) -> Iterator[Answer]:
    """Each picture's answer, in order, as soon as its batch is answered. Errors: InputError if there is no picture."""
    picture = None
    for picture, answer in classifier.stream(asked.pictures):
        name = STDIN if isinstance(picture, bytes) else str(picture)
        if isinstance(answer, ImageError) and isinstance(answer.__cause__, IsADirectoryError):
            answer = ImageError(f"there is no picture in {name}")  # noqa: PLW2901 - else it would have been one of them
        yield Answer(name, error=answer) if isinstance(answer, ImageError) else Answer(name, answer.best)
    if picture is None:
        raise InputError("the list names no picture", hint="a name a line")


def _picture_on_stdin() -> bytes:
    """No more of it than a picture may have: a device has no end. Errors: InputError."""
    content = bytearray()
    while block := sys.stdin.buffer.read(1 << 20):
        content += block
        if len(content) > MAX_BYTES:
            raise InputError(f"what is on stdin is no picture; valid: up to {MAX_BYTES:,} bytes")
    return bytes(content)


def _lines(name: str) -> Iterator[str]:
    """Names are bytes to the file system, and need not be UTF-8."""
    try:
        with sys.stdin.buffer if name == STDIN else Path(name).open("rb") as file:
            while line := file.readline(LONGEST_NAME):
                if len(line) == LONGEST_NAME:
                    raise InputError(f"{name} is no list of names: a line of it is longer than {LONGEST_NAME:,} bytes")
                if line.strip():
                    yield os.fsdecode(line.rstrip(b"\r\n"))
    except (OSError, ValueError) as exc:  # a name with a NUL is a ValueError
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise InputError(f"cannot read the names in {name}: {reason}") from exc
