"""One contender in a process of its own: opens a model, answers, and times itself in blocks when told to.

Commands come as JSON lines on stdin, replies go as JSON lines to the original stdout; whatever libraries print goes to
stderr. It decides neither order nor length of the blocks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

_STARTED_NS = time.perf_counter_ns()

import numpy as np  # noqa: E402 - the clock starts before the imports that it measures

from tinyres.errors import BackendUnavailable, TinyresError, UsageError  # noqa: E402
from tinyres.runtime.backends import BACKENDS, open_runner  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.runtime.runner import Runner

_IMPORTED_NS = time.perf_counter_ns()

PROBE_RUNS = 3
WARM_AGREEMENT = 0.05
WARM_LIMIT_S = 20.0
CHECKED_AGAIN = 32
"""Answers kept from an earlier bench are compared with so many new ones."""


class WrongAnswers(TinyresError):  # noqa: N818 - it is the contender's fault, not an error of ours
    """A timed run does not answer as the accuracy run did."""


class Absent(Exception):  # noqa: N818 - it names a state of the machine
    """The backend cannot open the file here."""


class Worker:
    """Holds the runner and the pictures between commands."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._images: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._answers: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._largest_error = 0.0

    @property
    def runner(self) -> Runner:
        """The open runner."""
        if self._runner is None:
            raise UsageError("the worker was not told to open a model")
        return self._runner

    def open(
        self, *, path: str, backend: str, way: str | None, threads: int, cores: list[int], images: str
    ) -> dict[str, Any]:
        """Load the model and give its first answer; each step is timed. Errors: Absent."""
        if cores and sys.platform not in {"win32", "darwin"}:
            os.sched_setaffinity(0, cores)
        asked = time.perf_counter_ns()
        __import__(BACKENDS[backend].module)
        imported = time.perf_counter_ns()
        try:
            self._runner = open_runner(Path(path), backend=backend, threads=threads, way=way)
        except BackendUnavailable as exc:
            raise Absent(f"{exc} ({exc.hint})" if exc.hint else str(exc)) from exc
        loaded = time.perf_counter_ns()
        self._images = np.load(images, mmap_mode="r")
        first = np.ascontiguousarray(self._images[:1])
        before = time.perf_counter_ns()
        self._runner(first)
        answered = time.perf_counter_ns()
        return {
            "device": self._runner.device,
            "evidence": self._runner.evidence,
            "storage": self._runner.precision.storage,
            "compute": self._runner.precision.compute,
            "import_s": (_IMPORTED_NS - _STARTED_NS + imported - asked) / 1e9,
            "load_s": (loaded - imported) / 1e9,
            "first_s": (answered - before) / 1e9,
        }

    def probe(self) -> dict[str, Any]:
        """How long one picture takes, before anything is warm: the shortest of a few runs."""
        return {"single_ns": min(self._time(1, seconds=0.0, least=PROBE_RUNS, most=PROBE_RUNS))}

    def answer(self, *, count: int, batch: int, out: str, share: float) -> dict[str, Any]:
        """Logits of the first `count` pictures into the .npy file `out`: the accuracy run.

        Later answers may differ from them by `share` of the part that depends on the picture.
        """
        self._expect(self._logits(count, batch), share)
        np.save(out, self._answers)
        return {}

    def recall(self, *, kept: str, count: int, batch: int, share: float) -> dict[str, Any]:
        """Take the answers of an earlier bench for those of the accuracy run, if the first of them are still given."""
        answers = np.load(kept)[:count]
        again = self._logits(min(CHECKED_AGAIN, count), batch)
        self._expect(answers, share)
        try:
            self._check(again, np.arange(len(again)))
        except (WrongAnswers, ValueError):
            self._answers = np.empty(0, dtype=np.float32)
            return {"holds": False}
        return {"holds": True}

    def _expect(self, answers: NDArray[np.float32], share: float) -> None:
        """Hold later answers against these. All that is large is done here: checks come between timed runs."""
        self._answers = answers
        self._largest_error = share * float(np.sqrt(np.mean(np.square(answers - answers.mean(axis=0)))))

    def _logits(self, count: int, batch: int) -> NDArray[np.float32]:
        parts = [self.runner(np.ascontiguousarray(self._images[at : at + batch])) for at in range(0, count, batch)]
        return np.concatenate(parts)[:count]

    def warm(self, *, batch: int, window_s: float, least: int) -> dict[str, Any]:
        """Run until two windows in a row agree, or the limit is reached; report the runs and the last median."""
        started = time.perf_counter()
        runs, previous = 0, 0.0  # no window agrees with that
        while True:
            window = self._time(batch, seconds=window_s, least=least, most=10_000)
            runs += len(window)
            now = float(np.median(window))
            steady = abs(now - previous) <= WARM_AGREEMENT * previous
            if steady or time.perf_counter() - started > WARM_LIMIT_S:
                return {"runs": runs, "median_ns": now, "steady": steady}
            previous = now

    def block(self, *, batch: int, seconds: float, least: int, most: int) -> dict[str, Any]:
        """Time runs for so long, and check each answer against the accuracy run."""
        self._time(batch, seconds=0.0, least=1, most=1)  # others ran since the last: the caches are theirs
        started = time.perf_counter()
        samples = self._time(batch, seconds=seconds, least=least, most=most)
        return {"samples_ns": samples, "seconds": time.perf_counter() - started, "peak_bytes": _peak_bytes()}

    def device(self, *, batch: int, runs: int) -> dict[str, Any]:
        """Times of the GPU alone, by part; none elsewhere."""
        ((_, images), *_rest) = self._inputs(batch)
        return {"parts_ns": self.runner.device_times(images, runs)}

    def load(self, *, clients: int, seconds: float) -> dict[str, Any]:
        """Answers to so many threads at once, each asking for one picture after the other."""
        runner, inputs = self.runner, self._inputs(1)
        ready = threading.Barrier(clients)

        def ask(number: int) -> tuple[float, list[int], float]:
            samples: list[int] = []
            answered: list[tuple[NDArray[np.float32], NDArray[np.intp]]] = []
            try:
                runner(inputs[number % len(inputs)][1])  # what a thread's first call sets up is no part of the load
            except BaseException:
                ready.abort()
                raise
            ready.wait(WARM_LIMIT_S)
            started = time.perf_counter()
            while not samples or time.perf_counter() < started + seconds:
                rows, images = inputs[(number + len(samples)) % len(inputs)]
                before = time.perf_counter_ns()
                logits = runner(images)
                samples.append(time.perf_counter_ns() - before)
                answered.append((logits, rows))
            ended = time.perf_counter()
            for logits, rows in answered:  # not before: a check is no part of the service
                self._check(logits, rows)
            return started, samples, ended

        if clients == 1:
            served = [ask(0)]  # where the other runs are: PyTorch has a team of threads for each that calls
        else:
            with ThreadPoolExecutor(clients) as pool:
                asked = [pool.submit(ask, number) for number in range(clients)]
            failed = [error for one in asked if (error := one.exception()) is not None]
            # The first cause: who waits for one that failed fails too.
            for error in sorted(failed, key=lambda one: isinstance(one, threading.BrokenBarrierError)):
                raise error
            served = [one.result() for one in asked]
        took = max(ended for _, _, ended in served) - min(started for started, _, _ in served)
        samples = [sample for _, part, _ in served for sample in part]
        return {"samples_ns": samples, "seconds": took, "peak_bytes": _peak_bytes()}

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
        error = float(np.sqrt(np.mean(np.square(logits - self._answers[rows]))))
        if not error <= self._largest_error:
            raise WrongAnswers("the answers of a timed run differ from those of the accuracy run")


def _peak_bytes() -> int | None:
    """The largest resident size this process had, where the system tells."""
    # Not getrusage: its maximum is inherited from the process that started this one.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024


def main() -> None:
    """Serve commands until stdin closes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply = {"ok": getattr(worker, command.pop("do"))(**command)}
        except Absent as exc:
            reply = {"absent": str(exc)}
        except WrongAnswers as exc:
            reply = {"wrong": str(exc)}
        except TinyresError as exc:
            reply = {"error": str(exc)}
        except Exception as exc:  # noqa: BLE001 - a contender's crash costs its row, not the bench
            reply = {"error": f"{type(exc).__name__}: {exc}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
