"""Files that are either whole or not there, their hashes, and where those lie that can be made again.

Nothing else in tinyres opens a file for writing under its final name.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyres.errors import InputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TEMPORARY = ".part-"
"""In the name of every file and folder that is not whole yet."""
_UNFINISHED = re.compile(rf"\..*{re.escape(TEMPORARY)}[0-9a-f]{{8}}-\d+-", re.DOTALL)


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

    The temporary keeps the suffix, since some libraries choose the format by it. What a killed writer of `path` left
    is removed. Errors: StorageError.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_beside(path.with_name(path.stem))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path.stem), suffix=path.suffix)
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
        with contextlib.suppress(OSError):  # it may be what failed; the next writer sweeps
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` to make it in, which is removed at the end. Errors: StorageError."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_beside(target)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=_prefix(target.name)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what writers of `folder` left half written when they were killed. Only where no other can be writing."""
    for path in filter(is_temporary, folder.glob(f".*{TEMPORARY}*")):
        with contextlib.suppress(OSError):
            path.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a file or folder has a name that `_prefix` begins: nothing of a user's is taken for one."""
    return _UNFINISHED.match(path.name) is not None


def _prefix(name: str) -> str:
    """What a temporary for `name` begins with: it says which process writes it."""
    return f".{name}{TEMPORARY}{_place()}-{os.getpid()}-"


@functools.cache
def _place() -> str:
    """Where the number of a process means something: this machine, and of its containers this one."""
    node = os.uname().nodename if hasattr(os, "uname") else ""
    with contextlib.suppress(OSError):  # absent beside Linux
        node += str(Path("/proc/self/ns/pid").stat().st_ino)
    return f"{zlib.crc32(node.encode()):08x}"


def _sweep_beside(target: Path) -> None:
    """Remove temporaries for `target` whose writers are dead; those of other machines stay: nothing is known of them.

    The name and not a lock tells it: over SMB a lock keeps the library from writing that is given the name.
    """
    known = re.compile(rf"{re.escape(f'.{target.name}{TEMPORARY}{_place()}')}-(\d+)-")
    for path in target.parent.iterdir():
        if (found := known.match(path.name)) and not _is_alive(int(found[1])):
            with contextlib.suppress(OSError):
                remove(path)


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # there the question would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


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


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy to `path`, atomically. Errors: StorageError.

    NumPy itself writes to files in C and may say nothing of a last block that found no room.
    """
    import numpy as np

    content = io.BytesIO()
    np.save(content, array)
    write_bytes(path, content.getvalue())


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


def at_home(path: str) -> Path:
    """A path with `~` and `~user` as the shell reads them; of a user who is not here it stays, where pathlib raises."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def cache_root(cache_dir: Path | None = None) -> Path:
    """Where caches and downloads live: the option, else TINYRES_CACHE, else the platform's cache folder."""
    if cache_dir is not None:
        return cache_dir
    import platformdirs

    return Path(os.environ.get("TINYRES_CACHE") or platformdirs.user_cache_path("tinyres"))
