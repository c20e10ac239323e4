"""The errors a user can meet, and the exit code of each.

    TinyresError                1  failed
    ├── TrainingError           1  diverged, out of memory
    ├── StorageError            1  a full disk, a folder that cannot be written
    ├── UsageError              2  an option, name or field that does not exist or does not fit
    ├── InputError              2  a file that cannot be used
    │   ├── ImageError             not a picture, or too large a one
    │   ├── DataError              a data set without images, classes or labels
    │   ├── CheckpointError        weights of another kind
    │   └── ArtifactError          an artifact or certificate that is none
    ├── ProofError              3  the artifact does not answer like the checkpoint, or nothing shows that it does
    └── BackendUnavailable      4  the backend asked for is not here, or did not run

Interrupted by the user is 130 and not an error. Third-party exceptions become one of these where they enter, with
`from`; library code never exits the process.
"""

from __future__ import annotations

import errno
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

EXIT_INTERRUPTED = 130


class TinyresError(Exception):
    """What went wrong in one line, and where known the command or value that mends it (`hint`)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class TrainingError(TinyresError):
    """Training cannot go on."""


class StorageError(TinyresError):
    """A file could not be written."""


class UsageError(TinyresError):
    """The request itself does not fit."""

    exit_code = 2


class InputError(TinyresError):
    """A file or folder given by the user cannot be used."""

    exit_code = 2


class ImageError(InputError):
    """A file that is no readable picture."""


class DataError(InputError):
    """A data set that cannot be trained on or judged with."""


class CheckpointError(InputError):
    """A weights file that is not what it should be."""


class ArtifactError(InputError):
    """An exported file or its certificate that is not what it should be."""


class ProofError(TinyresError):
    """An artifact that is not proven to answer like its checkpoint."""

    exit_code = 3


class BackendUnavailable(TinyresError):  # noqa: N818 - it names a state of the machine, not a fault in the program
    """A backend that is absent here, or that did not really run."""

    exit_code = 4


def suggest(name: str, valid: Iterable[str]) -> str:
    """The hint for a mistyped `name`: the close match where there is one, and all that is valid."""
    valid = list(valid)
    close = get_close_matches(name, valid, n=1)
    listed = "valid: " + ", ".join(valid) if valid else "there is none yet"
    return f"did you mean {close[0]!r}? {listed}" if close else listed


def suggest_file(path: Path, *, otherwise: str | None = None) -> str | None:
    """The hint for a `path` that leads nowhere: the close name beside it where there is one."""
    try:
        close = get_close_matches(path.name, {beside.name for beside in path.parent.iterdir()} - {path.name}, n=1)
    except (OSError, ValueError):  # no such folder; a name with a NUL
        close = []
    return f"did you mean {str(path.parent / close[0])!r}?" if close else otherwise


EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "onnx": "train",
    "safetensors": "train",
    "matplotlib": "train",
    "onnxruntime": "cpu",
}
"""The extra that brings a package which the base install leaves out."""
GIVEN = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EINVAL}
"""What the system says of a path that was given wrongly."""


def missing_extra(what: str, package: str, extra: str) -> BackendUnavailable:
    """The error for `what` when `package`, which the optional `extra` installs, is absent."""
    return BackendUnavailable(
        f"{what} needs the package {package}, which is not installed",
        hint=f"pip install 'tinyres[{extra}]'",
    )


def require_choice(what: str, value: str, valid: Iterable[str]) -> None:
    """Errors: UsageError that suggests the close match unless `value` is one of `valid`."""
    valid = list(valid)
    if value not in valid:
        raise UsageError(f"there is no {what} {value!r}", hint=suggest(value, valid))


def as_ours(error: Exception) -> TinyresError:
    """What any exception is to a user: a missing package, the system's refusal, or else a defect of tinyres."""
    if isinstance(error, TinyresError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return missing_extra("this command", error.name, EXTRAS[error.name])
    if isinstance(error, OSError) and error.strerror:  # the system's refusal: a name too long, a loop of links, no room
        where = f"cannot use {error.filename}" if error.filename else "the system refuses"
        return (InputError if error.errno in GIVEN else StorageError)(f"{where}: {error.strerror}")
    text = f"{type(error).__name__}: {error}"
    return TinyresError(text, hint="this is a defect of tinyres; --debug shows where")
