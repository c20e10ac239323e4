"""A folder or a zip as a list of names and the bytes behind each; nothing is ever extracted.

Names use `/` and are relative; folders end in `/`, as in a zip.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Protocol

from tinyres.errors import DataError

MAX_MEMBER_BYTES = 256 * 2**20
"""A larger member of a zip is refused before it is inflated."""


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
        try:
            return (self.root / name).read_bytes()
        except OSError as exc:
            raise DataError(f"cannot read {self.root / name}: {exc.strerror or exc}") from exc

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
        self._archive: zipfile.ZipFile | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_archive": None}  # each process opens its own handle

    @property
    def archive(self) -> zipfile.ZipFile:
        """The open archive. Errors: DataError if it is none or is cut short."""
        if self._archive is None:
            try:
                self._archive = zipfile.ZipFile(self.path)
            except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as exc:
                raise DataError(
                    f"{self.path} is not a readable zip: {exc}",
                    hint="fetch it again; a download may have been cut short",
                ) from exc
        return self._archive

    def names(self) -> list[str]:
        """Every member, sorted, without what macOS adds and hidden names."""
        return sorted(
            name for name in self.archive.namelist() if not name.startswith(("__MACOSX/", ".")) and "/." not in name
        )

    def read(self, name: str) -> bytes:
        """The content of one member. Errors: DataError."""
        try:
            info = self.archive.getinfo(name)
            if info.file_size > MAX_MEMBER_BYTES:
                raise DataError(
                    f"{name} in {self.path} inflates to {info.file_size:,} bytes; valid: {MAX_MEMBER_BYTES:,}"
                )
            return self.archive.read(info)
        except DataError:
            raise
        # zipfile raises many kinds on damaged members: BadZipFile, zlib.error, EOFError, RuntimeError (encrypted), ...
        except Exception as exc:
            raise DataError(f"cannot read {name} in {self.path}: {exc}") from exc

    def state(self, name: str) -> str:
        """Size and CRC, from the central directory."""
        info = self.archive.getinfo(name)
        return f"{info.file_size},{info.CRC}"
