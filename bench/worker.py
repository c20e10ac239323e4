"""One contender in a process of its own: opens a model, answers, and times itself in blocks when told to.

Commands come as JSON lines on stdin, replies go as JSON lines to the original stdout; whatever libraries print goes to
stderr. It decides neither order nor length of the blocks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

_STARTED_NS = time.perf_counter_ns()

import numpy as np  # noqa: E402 - the clock starts before the imports that it measures

from tinyres.errors import TinyresError, UsageError  # noqa: E402
from tinyres.runtime.backends import BACKENDS, open_runner  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.runtime.runner import Runner

_IMPORTED_NS = time.perf_counter_ns()

SAME_SHARE = 1e-2
"""Answers in a timed run may differ from those of the accuracy run by this share of the logits' RMS: another batch size
may add in another order, another function would not come near."""
WARM_AGREEMENT = 0.05
WARM_WINDOW_RUNS = 5
WARM_WINDOW_S = 0.2
WARM_LIMIT_S = 20.0


class Worker:
    """Holds the runner and the pictures between commands."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._images: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._answers: NDArray[np.float32] = np.empty(0, dtype=np.float32)

    @property
    def runner(self) -> Runner:
        """The open runner."""
        if self._runner is None:
            raise UsageError("the worker was not told to open a model")
        return self._runner

    def open(self, *, path: str, backend: str, threads: int, images: str) -> dict[str, Any]:
        """Load the model and give its first answer; each step is timed."""
        asked = time.perf_counter_ns()
        __import__(BACKENDS[backend].module)
        imported = time.perf_counter_ns()
        self._runner = open_runner(Path(path), backend=backend, threads=threads)
        loaded = time.perf_counter_ns()
        self._images = np.load(images, mmap_mode="r")
        first = np.ascontiguousarray(self._images[:1])
        before = time.perf_counter_ns()
        self._runner(first)
        answered = time.perf_counter_ns()
        return {
            "device": self._runner.device,
            "storage": self._runner.precision.storage,
            "compute": self._runner.precision.compute,
            "import_s": (_IMPORTED_NS - _STARTED_NS + imported - asked) / 1e9,
            "load_s": (loaded - imported) / 1e9,
            "first_s": (answered - before) / 1e9,
        }

    def answer(self, *, count: int, batch: int, out: str) -> dict[str, Any]:
        """Logits of the first `count` pictures into the .npy file `out`: the accuracy run."""
        parts = [self.runner(np.ascontiguousarray(self._images[at : at + batch])) for at in range(0, count, batch)]
        self._answers = np.concatenate(parts)[:count]
        np.save(out, self._answers)
        return {}

    def warm(self, *, batch: int) -> dict[str, Any]:
        """Run until two windows in a row agree, or the limit is reached; report the runs and the last median."""
        started = time.perf_counter()
        runs, previous = 0, float("inf")
        while True:
            window = self._time(batch, seconds=WARM_WINDOW_S, least=WARM_WINDOW_RUNS, most=10_000)
            runs += len(window)
            now = float(np.median(window))
            steady = abs(now - previous) <= WARM_AGREEMENT * previous
            if steady or time.perf_counter() - started > WARM_LIMIT_S:
                return {"runs": runs, "median_ns": now, "steady": steady}
            previous = now

    def block(self, *, batch: int, seconds: float, least: int, most: int) -> dict[str, Any]:
        """Time runs for so long, and check each answer against the accuracy run."""
        return {"samples_ns": self._time(batch, seconds=seconds, least=least, most=most)}

    def _time(self, batch: int, *, seconds: float, least: int, most: int) -> list[int]:
        runner = self.runner
        inputs = self._inputs(batch)
        samples: list[int] = []
        end = time.perf_counter() + seconds
        while len(samples) < least or (time.perf_counter() < end and len(samples) < most):
            rows, images = inputs[len(samples) % len(inputs)]
            before = time.perf_counter_ns()
            logits = runner(images)
            samples.append(time.perf_counter_ns() - before)
            self._check(logits, rows)
        return samples

    def _inputs(self, batch: int) -> list[tuple[NDArray[np.intp], NDArray[np.uint8]]]:
        """A few batches in memory, so that no run reads a file and none sees the picture of the run before."""
        count = len(self._answers) if len(self._answers) else len(self._images)
        rows = [np.arange(start, start + batch) % count for start in range(0, 8 * batch, batch)]
        return [(row, np.ascontiguousarray(self._images[row])) for row in rows]

    def _check(self, logits: NDArray[np.float32], rows: NDArray[np.intp]) -> None:
        if not len(self._answers):
            return
        expected = self._answers[rows]
        error = float(np.sqrt(np.mean(np.square(logits - expected))))
        if not error <= SAME_SHARE * float(np.sqrt(np.mean(np.square(self._answers)))):
            raise UsageError("the answers of a timed run differ from those of the accuracy run")

    def memory(self) -> dict[str, Any]:
        """The largest resident size this process had, where the system tells."""
        # Not getrusage: its maximum is inherited from the process that started this one.
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            return {"peak_bytes": None}
        lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return {"peak_bytes": int(lines["VmHWM"].split()[0]) * 1024}


def main() -> None:
    """Serve commands until stdin closes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply = {"ok": getattr(worker, command.pop("do"))(**command)}
        except TinyresError as exc:
            reply = {"error": str(exc)}
        except Exception as exc:  # noqa: BLE001 - a contender's crash costs its row, not the bench
            reply = {"error": f"{type(exc).__name__}: {exc}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
