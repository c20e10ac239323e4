"""Bad input by the thousand for everything that reads: `make fuzz`, or more of it by

    PYTHONPATH=tests:tests/errors python tests/reliability/fuzz.py --cases 10000 --seed 0

A real file, text or command line is damaged, in its bytes or in what its format means by them, and read. It must be
read, or refused with a TinyresError of one line; anything else is a finding: another exception, a crash of the
process, more than 20 s, or more memory than a bound. Case N of a reader is the same at every run with the same kit;
`--only READER --first N --cases 1` shows it again. Prints JSON. `fuzzing/` has the readers and the damages.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from fuzzing.kit import make_kit
from fuzzing.readers import Outcome, Reader, readers

from tinyres.errors import TinyresError

SLOWEST_S = 20
MEMORY = 6 * 2**30
"""Of address space in all, libraries included."""
GROWTH = 2**30
"""Of resident memory within a case; twice the largest member of a zip fits."""


class Hang(BaseException):
    """It took too long; no reader may catch it."""


@contextmanager
def limited_time() -> Iterator[None]:
    """Hang after `SLOWEST_S`."""

    def late(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SLOWEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Memory:
    """Resident memory of this process since a moment, where Linux tells it."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self._before = self._read("VmRSS")

    def growth(self) -> int:
        """Bytes that were held at most, beyond those held before."""
        return self._read("VmHWM") - self._before

    @staticmethod
    def _read(name: str) -> int:
        try:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        except OSError:
            return 0
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def try_case(reader: Reader, number: int, seed: int, scratch: Path) -> tuple[str, str]:
    """The kind of outcome ("read", the name of a TinyresError, or "finding"), and what is to be said of it."""
    original = (reader.home / reader.file).read_bytes()
    rng = random.Random(f"{reader.name} {seed} {number}")  # noqa: S311 - the same every time is what is wanted
    content = reader.damage(original, rng)
    home = scratch / "case"
    shutil.copytree(reader.home, home, symlinks=True)
    (home / reader.file).write_bytes(content)
    try:
        kind, said = _judged(reader, home)
    finally:
        shutil.rmtree(home)
    return kind, said


def _judged(reader: Reader, home: Path) -> tuple[str, str]:
    memory = Memory()
    try:
        with limited_time():
            found = reader.read(home)
        kind = str(found) if isinstance(found, Outcome) else "read"
    except TinyresError as exc:
        if len(str(exc).splitlines()) != 1:
            return "finding", f"{type(exc).__name__} of no words or several lines: {str(exc)[:200]!r}"
        kind = type(exc).__name__
    except Hang:
        return "finding", f"more than {SLOWEST_S} s"
    except Exception as exc:  # noqa: BLE001 - that is what is looked for
        where = traceback.extract_tb(exc.__traceback__)[-1]
        return "finding", f"{type(exc).__name__}: {str(exc)[:500]} ({Path(where.filename).name}:{where.lineno})"
    if memory.growth() > GROWTH:
        return "finding", f"it held {memory.growth() / 2**20:,.0f} MiB"
    return kind, ""


def child(kit: Path, names: list[str], start: int, first: int, cases: int, seed: int) -> None:
    """Print each case's outcome as a line of JSON, begun with the case itself, so that a crash has a name.

    The first reader begins at case `start`, the others at `first`.
    """
    chosen = [reader for reader in readers(kit) if reader.name in names]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")  # commands write on stdout
    with tempfile.TemporaryDirectory(prefix="tinyres-fuzz-") as scratch:
        for reader in chosen:
            for number in range(start, first + count_of(reader, cases)):
                print(json.dumps([reader.name, number]), file=told, flush=True)
                began = time.perf_counter()
                outcome, said = try_case(reader, number, seed, Path(scratch))
                took = round(time.perf_counter() - began, 3)
                print(json.dumps([outcome, said, took]), file=told, flush=True)
            start = first


def count_of(reader: Reader, cases: int) -> int:
    """How many cases a reader gets."""
    return max(1, round(cases * reader.share))


class Tally:
    """What came of the cases of some readers, in a process apart, which is started again after a case that kills it."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts
        self.outcomes: dict[str, Counter[str]] = {name: Counter() for name in counts}
        self.seconds = dict.fromkeys(counts, 0.0)
        self.findings: list[dict[str, object]] = []
        self.slowest: tuple[float, str, int] = (0.0, "", 0)

    def run(self, kit: Path, *, cases: int, seed: int, first: int) -> None:
        """Try all of them."""
        waiting, start = list(self.counts), first
        while waiting:
            numbers = [str(number) for number in (start, first, cases, seed)]
            words = [sys.executable, __file__, "child", str(kit), json.dumps(waiting), *numbers]
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                case = self._listen(process.stdout)
            if case is None:
                if process.returncode:
                    raise SystemExit(f"a fuzzing process ended with {process.returncode} between cases")
                return
            self._add(case, "finding", f"the process died: {process.returncode}", 0.0)
            waiting, start = waiting[waiting.index(case[0]) :], case[1] + 1
            if start >= first + self.counts[case[0]]:
                waiting, start = waiting[1:], first

    def _listen(self, lines: Iterable[str]) -> tuple[str, int] | None:
        """Count what a child tells; the case that it began and did not end, if there is one."""
        case: tuple[str, int] | None = None
        for line in lines:
            told = json.loads(line)
            if len(told) == 2:
                case = (told[0], told[1])
            elif case is not None:
                self._add(case, *told)
                case = None
        return case

    def _add(self, case: tuple[str, int], outcome: str, said: str, seconds: float) -> None:
        self.outcomes[case[0]][outcome] += 1
        self.seconds[case[0]] += seconds
        self.slowest = max(self.slowest, (seconds, *case))
        if outcome == "finding":
            self.findings.append({"reader": case[0], "case": case[1], "what": said})
            print(f"{case[0]}, case {case[1]}: {said}", file=sys.stderr)


def fuzz(
    kit: Path, *, cases: int, seed: int = 0, only: str | None = None, first: int = 0, jobs: int = 1
) -> dict[str, object]:
    """Try `cases` of each reader, in `jobs` processes at a time."""
    counts = {reader.name: count_of(reader, cases) for reader in readers(kit) if only in (None, reader.name)}
    names = list(counts)
    tallies = [Tally({name: counts[name] for name in names[job::jobs]}) for job in range(min(jobs, len(names)))]
    began = time.perf_counter()
    with ThreadPoolExecutor(len(tallies)) as pool:
        for done in [pool.submit(one.run, kit, cases=cases, seed=seed, first=first) for one in tallies]:
            done.result()
    return {
        "cases": sum(sum(kinds.values()) for one in tallies for kinds in one.outcomes.values()),
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 1),
        "slowest": max(one.slowest for one in tallies),
        "outcomes": {name: one.outcomes[name] for name in names for one in tallies if name in one.outcomes},
        "seconds_by_reader": {name: round(one.seconds[name], 1) for one in tallies for name in one.seconds},
        "findings": [finding for one in tallies for finding in one.findings],
    }


def main() -> int:
    """Fuzz and print; 1 if anything was found."""
    if sys.argv[1:2] == ["child"]:
        folder, names, *numbers = sys.argv[2:]
        child(Path(folder), json.loads(names), *map(int, numbers))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=300, help="of each reader")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="READER")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--kit", type=Path, help="kept there, and used again")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tinyres-kit-") as folder:
        kit = asked.kit or Path(folder) / "kit"
        if not kit.exists():
            make_kit(kit)
        found = fuzz(kit, cases=asked.cases, seed=asked.seed, only=asked.only, first=asked.first, jobs=asked.jobs)
    print(json.dumps(found, indent=1))
    return int(bool(found["findings"]))


if __name__ == "__main__":
    sys.exit(main())
