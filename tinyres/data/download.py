"""The official Tiny ImageNet archive: fetched with resume, and accepted only with the known size and checksum."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock

from tinyres.errors import DataError
from tinyres.files import sha256_of, storage_errors, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tinyres.progress import Progress

BLOCK = 1 << 18
TIMEOUT_S = 30.0
TRIES = 5


@dataclass(frozen=True, slots=True)
class Archive:
    """A file on a server, and what it must be."""

    url: str
    size_bytes: int
    sha256: str
    """The server is asked without encryption, so this is what keeps another file out."""


TINY_IMAGENET = Archive(
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    size_bytes=248_100_043,
    sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
)


def fetch_tiny_imagenet(root: Path, progress: Progress) -> Path:
    """The archive below `root`, downloaded if it is not there. Errors: DataError, StorageError."""
    return fetch(TINY_IMAGENET, _place(root), progress)


def is_downloaded(root: Path) -> bool:
    """Whether the archive is below `root`."""
    return _place(root).is_file()


def _place(root: Path) -> Path:
    return root / "downloads" / "tiny-imagenet-200.zip"


def fetch(archive: Archive, path: Path, progress: Progress) -> Path:
    """Download `archive` to `path` unless it is there; a broken transfer goes on where it stopped.

    Errors: DataError if the server cannot be reached or sends something else; StorageError.
    """
    if path.exists():
        return path
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():
                return path
            already = partial.stat().st_size if partial.exists() else 0
            with progress.task(f"downloading {path.name}", archive.size_bytes, "B", done=already) as task:
                _fetch_all(archive, partial, task.advance)
            _check(archive, partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())  # a power cut must not leave half of it under its name
            partial.replace(path)
            sync_folder(path.parent)
    return path


def _fetch_all(archive: Archive, partial: Path, advance: Callable[[int], None]) -> None:
    for attempt in range(TRIES):
        before = partial.stat().st_size if partial.exists() else 0
        if before >= archive.size_bytes:
            return
        try:
            _fetch_rest(archive, partial, before, advance)
        # URLError is an OSError; a full disk is one too, and must not be taken for a broken line.
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as exc:
            stuck = partial.stat().st_size == before if partial.exists() else True
            if stuck and attempt == TRIES - 1:
                raise DataError(
                    f"cannot download {archive.url}: {getattr(exc, 'reason', None) or exc}",
                    hint="fetch the zip elsewhere and pass it with --data FILE.zip",
                ) from exc
    if partial.stat().st_size < archive.size_bytes:
        raise DataError(
            f"{archive.url} breaks off again and again", hint="run the same command later: it goes on from there"
        )


def _fetch_rest(archive: Archive, partial: Path, start: int, advance: Callable[[int], None]) -> None:
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - a constant http address
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        with partial.open("ab" if resumed else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                if file.tell() > archive.size_bytes:
                    break
                advance(len(block))


def _check(archive: Archive, partial: Path) -> None:
    size = partial.stat().st_size
    digest = sha256_of(partial)
    if size != archive.size_bytes or digest != archive.sha256:
        partial.unlink()
        raise DataError(
            f"{archive.url} sent {size:,} bytes with SHA-256 {digest};"
            f" the official archive has {archive.size_bytes:,} bytes and SHA-256 {archive.sha256}",
            hint="nothing was kept; a proxy may have answered instead",
        )
