"""Files that are either whole or not there, their hashes, and where those lie that can be made again.

Nothing else in tinyres opens a file for writing under its final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres.errors import InputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY = ".part-"
"""In the name of every file that is not whole yet."""


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into a StorageError that names it."""
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise StorageError(f"cannot write {path}: {reason}") from exc


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` for a library that writes by name; renamed to `path` if the block succeeds.

    The temporary keeps the suffix, since some libraries choose the format by it. Errors: StorageError.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}{TEMPORARY}", suffix=path.suffix)
        os.close(handle)
    temporary = Path(name)
    try:
        with storage_errors(path):
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            # mkstemp makes files private; an artifact is as readable as the user's umask says.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what writers of `folder` left half written when they were killed. Only where no other can be writing."""
    for path in folder.glob(f".*{TEMPORARY}*"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system can sync folders at all."""
    with contextlib.suppress(OSError):  # Windows cannot open a folder; the rename is atomic there too
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, atomically. Errors: StorageError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 `content` to `path`, atomically. Errors: StorageError."""
    write_bytes(path, content.encode())


def read_whole(path: Path, most: int, *, error: type[InputError] = InputError) -> bytes:
    """The content of a file of up to `most` bytes; of a larger one, or a device without end, no more is read.

    Errors: `error` if it cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            # By its size, since Python takes memory for all that is asked for; pipes and devices have none.
            content = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)
            rest = bytearray()
            while len(content) + len(rest) <= most and (block := file.read(1 << 20)):
                rest += block
            content += rest
    except (OSError, ValueError) as exc:  # a name with a NUL is a ValueError
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise error(f"cannot read {path}: {reason}") from exc
    if len(content) > most:
        raise error(f"{path} is too large; valid: up to {most:,} bytes")
    return content


def remove(path: Path) -> None:
    """Remove a file or a folder tree if it is there."""
    with storage_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_root(cache_dir: Path | None = None) -> Path:
    """Where caches and downloads live: the option, else TINYRES_CACHE, else the platform's cache folder."""
    if cache_dir is not None:
        return cache_dir
    import platformdirs

    return Path(os.environ.get("TINYRES_CACHE") or platformdirs.user_cache_path("tinyres"))
