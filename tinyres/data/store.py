"""A folder or a zip as a list of names and the bytes behind each; nothing is ever extracted.

Names use `/` and are relative; folders end in `/`, as in a zip.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Protocol

from tinyres.data.members import Members, open_member
from tinyres.errors import DataError
from tinyres.files import read_whole
from tinyres.harmless import shown

MAX_MEMBER_BYTES = 256 * 2**20
"""A larger member of a zip is refused before it is inflated."""
STEP = 2**16
"""Bytes that are inflated at a time. zipfile itself inflates a member in one go, far past the size that it claims, and
then cuts off what is too much."""
INFLATED_BY_STEPS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The other methods know no steps: a kilobyte of bzip2 may become a gigabyte at once."""


class Store(Protocol):
    """Where the files of a data set lie. Picklable, so that every core can read."""

    def names(self) -> list[str]:
        """Every file and folder, sorted."""

    def read(self, name: str) -> bytes:
        """The content of one file. Errors: DataError."""

    def state(self, name: str) -> str:
        """Changes when the content of the file does; read from a listing, since reading all would cost a build."""


class FolderStore:
    """Files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Every file and folder, sorted; links to folders are followed once, hidden names left out."""
        found: list[str] = []
        seen: set[str] = set()
        for folder, children, files in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                children.clear()
                continue
            seen.add(real)
            children[:] = [name for name in children if not name.startswith(".")]
            prefix = Path(folder).relative_to(self.root).as_posix()
            prefix = "" if prefix == "." else prefix + "/"
            found += [f"{prefix}{name}/" for name in children]
            found += [f"{prefix}{name}" for name in files if not name.startswith(".")]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """The content of one file. Errors: DataError."""
        path = self.root / name
        try:
            regular = stat.S_ISREG(path.stat().st_mode)  # a pipe that nobody fills would be waited for
        except OSError as exc:
            raise DataError(f"cannot read {shown(str(path))}: {exc.strerror or exc}") from exc
        if not regular:
            raise DataError(f"{shown(str(path))} is no file: a device or a pipe")
        return read_whole(path, MAX_MEMBER_BYTES, error=DataError)

    def state(self, name: str) -> str:
        """Size and time of change."""
        try:
            found = (self.root / name).stat()
        except OSError:  # a link to nothing, or a file that just went: it will be listed as unreadable
            return ""
        return f"{found.st_size},{found.st_mtime_ns}"


class ZipStore:
    """Members of a zip, read in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: Members | None = None

    @property
    def members(self) -> Members:
        """The archive's directory. Errors: DataError if it is none or is cut short."""
        if self._members is None:
            try:
                with zipfile.ZipFile(self.path) as archive:
                    self._members = Members(archive)
            # zipfile raises many kinds on a damaged directory: BadZipFile, struct.error, OverflowError, ...
            except Exception as exc:
                raise DataError(
                    f"{self.path} is not a readable zip: {shown(str(exc))}",
                    hint="fetch it again; a download may have been cut short",
                ) from exc
        return self._members

    def names(self) -> list[str]:
        """Every member, sorted, without what macOS adds and hidden names; of several of one name the last counts."""
        return [name for name in self.members.names if not name.startswith(("__MACOSX/", ".")) and "/." not in name]

    def read(self, name: str) -> bytes:
        """The content of one member. Errors: DataError."""
        try:
            info = self.members.find(name)
            if info.file_size > MAX_MEMBER_BYTES:
                raise DataError(
                    f"{shown(name)} in {self.path} inflates to {info.file_size:,} bytes; valid: {MAX_MEMBER_BYTES:,}"
                )
            return read_member(self.path, info)
        except DataError:
            raise
        # zipfile raises many kinds on damaged members: BadZipFile, zlib.error, EOFError, RuntimeError (encrypted), ...
        except Exception as exc:
            raise DataError(f"cannot read {shown(name)} in {self.path}: {shown(str(exc))}") from exc

    def state(self, name: str) -> str:
        """Size and CRC, from the central directory."""
        return self.members.state(name)


def read_member(path: Path, info: zipfile.ZipInfo) -> bytes:
    """The content of a member, in no more memory than its header claims.

    Errors: whatever zipfile raises on damage.
    """
    if info.compress_type not in INFLATED_BY_STEPS:
        raise zipfile.BadZipFile(f"compression method {info.compress_type}; valid: stored or deflated, as zip -r does")
    content = bytearray()
    with path.open("rb") as file, open_member(file, info) as member:
        while block := member.read(STEP):
            content += block
    return bytes(content)
