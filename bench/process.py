"""The parent's end of a contender's process: ask, wait within a limit, and know why if no answer comes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from tinyres.errors import TinyresError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

OPEN_LIMIT_S = 300.0
REPLY_LIMIT_S = 300.0


class ContenderFailed(TinyresError):  # noqa: N818 - it costs a row, not the bench
    """A contender crashed, hung or refused; its row says why."""


class ContenderAbsent(ContenderFailed):
    """What a contender needs is not here; its row says what, and how to get it."""


class AnsweredWrongly(ContenderFailed):
    """A contender that answers otherwise than it did; none of its figures is to be believed."""


class WorkerProcess:
    """A running `tinyres.bench.worker`. Ends with the block that holds it."""

    def __init__(self, command: Sequence[str] = (), *, environment: Mapping[str, str] | None = None) -> None:
        self._patience_s = 10.0
        self._stderr = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", "tinyres.bench.worker"],
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for the bench, which then keeps what was measured
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
        )
        # A pipe has no timed read that works on every system; a thread hands the lines over.
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")  # the end

    @property
    def id(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, do: str, *, limit_s: float = REPLY_LIMIT_S, **arguments: object) -> dict[str, Any]:
        """Send a command and return its reply. Errors: ContenderFailed."""
        if self._process.stdin is None:
            raise ContenderFailed("it has no input")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            self.kill()
            raise ContenderFailed(f"no answer within {limit_s:.0f} s; ended") from None
        except (BrokenPipeError, OSError):
            line = ""
        if not line:
            raise ContenderFailed(f"the process {self._end()}{self._last_words()}")
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise ContenderFailed(f"it ended inside an answer{self._last_words()}") from None
        if "absent" in reply:
            raise ContenderAbsent(reply["absent"])
        if "wrong" in reply:
            raise AnsweredWrongly(reply["wrong"])
        if "error" in reply:
            raise ContenderFailed(reply["error"])
        answer: dict[str, Any] = reply["ok"]
        return answer

    def _end(self) -> str:
        """How it ended; a process that answers no more and lives on in some thread is ended."""
        try:
            return _ending(self._process.wait(timeout=self._patience_s))
        except subprocess.TimeoutExpired:
            self.kill()
            return "stopped answering; ended"

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()]
        return f": {lines[-1][:200]}" if lines else ""

    def kill(self) -> None:
        """End the process and what it started, as compilers."""
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it may have ended on its own
                self._process.stdin.close()
        try:
            self._process.wait(timeout=self._patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._reader.join(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._patience_s = 0.0  # it may be in the midst of a block that nobody waits for any more
        self.close()


def _ending(code: int) -> str:
    """How a process came to its end, from its exit code."""
    if code >= 0:
        return f"ended with code {code}"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return "was killed, as the system does when memory runs out"
    return f"ended with {name}"
