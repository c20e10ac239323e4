"""A process whose writes go wrong: the Nth call that changes files below a folder fails, or the process dies at it.

Python's own calls are wrapped, and the two C writers with a name to replace (safetensors, NumPy); what else writes in C
meets a full disk and a limit on file sizes in `faults.py`. For a process that is thrown away: nothing is put back.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

Kind = Literal["ENOSPC", "EIO", "EACCES", "kill before", "kill after"]
ERRORS: tuple[Kind, ...] = ("ENOSPC", "EIO", "EACCES")
KILLS: tuple[Kind, ...] = ("kill before", "kill after")

GROWING = frozenset({"open", "write", "mkdir", "fallocate", "save_file", "np.save", "sendfile", "flush", "link"})
"""What a full disk refuses, and goes on refusing."""
UNPERMITTED = frozenset({"open", "mkdir", "replace", "unlink", "rmdir", "chmod", "link"})
"""What permissions can refuse: a file that is open stays open."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    kind: Kind
    at: int
    """The call, from 1."""


def replace(owner: object, name: str, value: object) -> None:
    """Put `value` in the place of an attribute, for the rest of the process. Errors: AttributeError if it has none."""
    mock.patch.object(owner, name, value).start()


class Faulty:
    """The calls that change files below a folder, counted, with a fault in one of them."""

    def __init__(self, home: Path, fault: Fault | None = None) -> None:
        self._home = os.path.realpath(home)
        self._fault = fault
        self.calls: list[tuple[str, str]] = []
        """Name and file of each so far."""
        self.hit = ""

    @contextmanager
    def call(self, name: str, path: object, half: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Around the real call; `half` does a part of it, as a disk that fills up or a kill would leave it."""
        where = self._below(path)
        if where is None:
            yield
            return
        self.calls.append((name, where))
        fault = self._fault
        hit = fault is not None and fault.at == len(self.calls)
        if hit:
            self.hit = f"{name} {where}"
        full = fault is not None and fault.kind == "ENOSPC" and len(self.calls) > fault.at and name in GROWING
        if fault is not None and (hit or full) and fault.kind in ERRORS:
            half()
            number = getattr(errno, fault.kind)
            raise OSError(number, os.strerror(number), str(path))
        if fault is not None and hit and fault.kind == "kill before":
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            yield
        finally:  # also after a call that the system refused by itself
            if fault is not None and hit:
                os.kill(os.getpid(), signal.SIGKILL)

    def _below(self, path: object) -> str | None:
        if isinstance(path, int):
            try:
                path = Path(f"/proc/self/fd/{path}").readlink()
            except OSError:
                return None
        whole = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type] # noqa: PTH100 - it may be a folder
        inside = os.path.relpath(whole, self._home)
        return None if inside.startswith("..") else inside

    def install(self) -> None:
        """From here on, in this process."""
        self._wrap_system()
        self._wrap_open()
        self._wrap_libraries()

    def _wrap_system(self) -> None:
        def wrap(name: str, called: str, *, place: int = 0) -> None:
            if not hasattr(os, name):
                return
            real = getattr(os, name)

            def faulty(*arguments: Any, **options: Any) -> Any:
                path = arguments[place]
                if options.get("dir_fd") is not None:
                    path = Path(f"/proc/self/fd/{options['dir_fd']}").readlink() / path
                with self.call(called, path):
                    return real(*arguments, **options)

            replace(os, name, faulty)

        for name, called in (
            ("fsync", "fsync"),
            ("mkdir", "mkdir"),
            ("rmdir", "rmdir"),
            ("unlink", "unlink"),
            ("remove", "unlink"),
            ("chmod", "chmod"),
            ("sendfile", "sendfile"),
            ("posix_fallocate", "fallocate"),
        ):
            wrap(name, called)
        for name in ("replace", "rename", "link"):
            wrap(name, "link" if name == "link" else "replace", place=1)
        real_open, real_write = os.open, os.write

        def faulty_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if not flags & (os.O_WRONLY | os.O_RDWR):
                return real_open(path, flags, *arguments, **options)
            with self.call("open", path):
                return real_open(path, flags, *arguments, **options)

        def faulty_write(handle: int, content: Any) -> int:
            with self.call("write", handle, lambda: real_write(handle, bytes(content)[: len(content) // 2])):
                return real_write(handle, content)

        replace(os, "open", faulty_open)
        replace(os, "write", faulty_write)

    def _wrap_open(self) -> None:
        real, call = io.open, self.call

        class Raw(io.FileIO):
            def write(self, content: Any) -> int:
                with call("write", self.fileno(), lambda: super(Raw, self).write(bytes(content)[: len(content) // 2])):
                    return super().write(content)

        def faulty(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if not set(mode) & set("wax+") or isinstance(file, int) or self._below(file) is None:
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            with self.call("open", file):
                raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

        replace(io, "open", faulty)
        replace(builtins, "open", faulty)

    def _wrap_libraries(self) -> None:
        import numpy as np
        import safetensors.torch

        real_save_file, real_save, real_flush = safetensors.torch.save_file, np.save, np.memmap.flush

        def save_file(tensors: Any, path: Any, *arguments: Any, **options: Any) -> None:
            try:
                with self.call("save_file", path, lambda: _half_file(path)):
                    real_save_file(tensors, path, *arguments, **options)
            except OSError as exc:
                raise safetensors.SafetensorError(f"Error while serializing: {exc.strerror}") from exc

        def save(path: Any, array: Any, *arguments: Any, **options: Any) -> None:
            name = path if isinstance(path, (str, os.PathLike)) else getattr(path, "name", "/")
            with self.call("np.save", name, lambda: _half_file(name)):
                real_save(path, array, *arguments, **options)

        def flush(array: Any) -> None:
            with self.call("flush", array.filename or "/"):
                real_flush(array)

        replace(safetensors.torch, "save_file", save_file)
        replace(np, "save", save)
        replace(np.memmap, "flush", flush)


def _half_file(path: Any) -> None:
    with io.FileIO(path, "w") as file:
        file.write(b"\x93NUMPY, or half of a checkpoint")
