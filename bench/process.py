"""The parent's end of a contender's process: ask, wait within a limit, and know why if no answer comes."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

from tinyres.errors import TinyresError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

OPEN_LIMIT_S = 300.0
REPLY_LIMIT_S = 300.0


class ContenderFailed(TinyresError):  # noqa: N818 - it costs a row, not the bench
    """A contender crashed, hung or refused; its row says why."""


class WorkerProcess:
    """A running `tinyres.bench.worker`. Ends with the block that holds it."""

    def __init__(self, command: list[str] | None = None) -> None:
        self._stderr = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", "tinyres.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
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

    def ask(self, do: str, *, limit_s: float = REPLY_LIMIT_S, **arguments: object) -> dict[str, Any]:
        """Send a command and return its reply. Errors: ContenderFailed."""
        if self._process.stdin is None:
            raise ContenderFailed("it has no input")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            self._process.kill()
            raise ContenderFailed(f"no answer within {limit_s:.0f} s; ended") from None
        except (BrokenPipeError, OSError):
            line = ""
        if not line:
            raise ContenderFailed(f"the process ended with code {self._process.wait()}{self._last_words()}")
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise ContenderFailed(f"it ended inside an answer{self._last_words()}") from None
        if "error" in reply:
            raise ContenderFailed(reply["error"])
        answer: dict[str, Any] = reply["ok"]
        return answer

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr if line.strip()]
        return f": {lines[-1][:200]}" if lines else ""

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it may have ended on its own
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
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
        self.close()
