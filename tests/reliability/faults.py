"""Faults at every step at which tinyres writes: `make faults`. Linux; minutes.

Each case is a process that does a small job in a folder of its own, with one fault in it:

call       the Nth call that changes a file fails: no space (and from there on), an I/O error, permission denied
kill       the process dies right after the Nth such call, and half way into each write
outside    it is killed from outside, at fractions of the job's duration
size       no file may grow past a limit, of which C code hears too
full       the disk is full at a size that grows from case to case; needs root, for a small tmpfs
read-only  each folder in turn is read-only for another user; needs root

Then nothing may be lost: the job ended with one line and exit code 1, or did all; what was there is whole, or the new
is; nothing half written lies under its final name; and the same job, run again, ends as if nothing had happened.
Prints JSON; `--only SCENARIO --kind KIND --case NUMBER` shows one case again.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one process a core is faster; and threads survive no fork

from fault_scenarios import Scenario, make_kit, scenarios
from fault_situations import situations
from faulty import ERRORS, GROWING, UNPERMITTED, Fault, Faulty
from typer.testing import CliRunner

from tinyres.cli import app

KINDS = ("call", "kill", "outside", "size", "full", "read-only")
SLOWEST_S = 60
OUTSIDE = 15
"""Kills from outside, a scenario."""
FULL = 25
"""Sizes of a full disk, a scenario."""
NOBODY = 65534
TMPFS_BLOCK = 4096


@dataclass(frozen=True)
class Case:
    """One fault in one job."""

    scenario: str
    kind: str
    number: int
    what: str
    """For people."""
    fault: Fault | None = None
    amount: float = 0.0
    """Bytes of a limit, or seconds until a kill."""
    folder: str = ""
    """To be read-only."""
    cleaning: bool = False
    """What fails is the removal of something, which then stays."""


@dataclass(frozen=True)
class Asked:
    """Which cases to try."""

    only: str | None = None
    """A scenario."""
    kinds: tuple[str, ...] = KINDS
    number: int | None = None
    every: int = 1


@dataclass(frozen=True)
class Clean:
    """A job without faults."""

    result: object
    calls: list[tuple[str, str]]
    seconds: float
    sizes: list[int]
    """Of the files there are afterwards."""
    blocks: int
    """Of a disk that it needs at most."""
    folders: list[str]
    """That were there before."""


def in_a_fork(work: Callable[[], object], *, kill_after_s: float | None = None) -> tuple[int, Any]:
    """Do `work` in a process of its own; return its status as of wait, and the JSON of what it returned, if it did."""
    reader, writer = os.pipe()
    write, exit_ = os.write, os._exit  # the work may replace them
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(SLOWEST_S)
        try:
            said = json.dumps({"value": work()})
        except BaseException as exc:  # noqa: BLE001 - told to the parent
            where = traceback.extract_tb(exc.__traceback__)[-1]
            text = f"{type(exc).__name__}: {exc} ({Path(where.filename).name}:{where.lineno})"
            said = json.dumps({"raised": text})
        for start in range(0, len(said), 4096):
            write(writer, said.encode()[start : start + 4096])
        exit_(0)
    os.close(writer)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as file:
        told = file.read()
    status = os.waitpid(child, 0)[1]
    return status, json.loads(told) if status == 0 else None


def _state(run: Path) -> str:
    try:
        return str(json.loads((run / "state.json").read_bytes())["state"])
    except (OSError, ValueError):
        return ""


def leftovers(home: Path) -> list[str]:
    """Temporaries, but for those in a run that died before it saved anything, since the next one is another.

    Nor those whose content may not be removed.
    """
    found = []
    for path in home.rglob("*"):
        half = ".part-" in path.name or path.suffix == ".tmp"
        kept = path.is_dir() and any(not below.stat().st_mode & 0o200 for below in path.rglob("*"))
        given_up = (
            path.parent.parent.name == "runs"
            and not any(path.parent.glob("last.*"))
            and _state(path.parent) != "imported"
        )
        if half and not kept and not given_up and path.parent.suffix != ".partial":
            found.append(str(path.relative_to(home)))
    return found


class Rig:
    """One scenario and its cases."""

    def __init__(self, scenario: Scenario, kit: Path, scratch: Path) -> None:
        self.scenario, self._kit = scenario, kit
        self._before = scratch / "before"
        self._before.mkdir(parents=True)
        self.home = scratch / "home"
        """Where a job works; the processes have one each."""
        status, told = in_a_fork(lambda: scenario.prepare(kit, self._before))
        if status or "raised" in told:
            raise SystemExit(f"{scenario.name} cannot be prepared: {told}")
        self.clean = self._rehearse()

    def _fresh(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self._before, self.home, symlinks=True)

    def _twin(self) -> Path:
        twin = self.home.with_name("twin")
        shutil.rmtree(twin, ignore_errors=True)
        return Path(shutil.copytree(self._before, twin, symlinks=True))

    def _rehearse(self) -> Clean:
        self._fresh()

        def work() -> object:
            faulty = Faulty(self.home)
            faulty.install()
            started = time.perf_counter()
            ended = self.scenario.job(self._kit, self.home)
            seconds = time.perf_counter() - started
            result = self.scenario.result(self.home) if ended.code == 0 else None
            return [ended.code, ended.said, faulty.calls, seconds, result]

        status, told = in_a_fork(work)
        if status or "raised" in told or told["value"][0]:
            raise SystemExit(f"{self.scenario.name} fails without a fault: {status} {told}")
        _, _, calls, seconds, result = told["value"]
        sizes = sorted({path.stat().st_size for path in self.home.rglob("*") if path.is_file()})
        blocks = 2 * _blocks(self.home) - _blocks(self._before)  # what is replaced is there twice for a while
        folders = sorted(str(path.relative_to(self._before)) for path in self._before.rglob("*") if path.is_dir())
        return Clean(result, [(name, where) for name, where in calls], seconds, sizes, blocks, [".", *folders])

    def cases(self, kinds: tuple[str, ...]) -> Iterator[Case]:
        """All cases of these kinds."""
        makers = {
            "call": self._calls,
            "kill": self._kills,
            "outside": self._kills_from_outside,
            "size": self._limits,
            "full": self._full_disks,
            "read-only": self._read_only,
        }
        for kind in kinds:
            for number, (what, fields) in enumerate(makers[kind]()):
                yield Case(self.scenario.name, kind, number, what, **fields)

    def _calls(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for at, (name, where) in enumerate(self.clean.calls, start=1):
            for kind in ERRORS:
                # Only what a system really answers: chmod needs no space, an open file no permission.
                if kind == "ENOSPC" and name not in GROWING | {"fsync", "replace"}:
                    continue
                if kind == "EACCES" and name not in UNPERMITTED:
                    continue
                cleaning = name in ("unlink", "rmdir")
                yield f"{kind} at {name} {where}", {"fault": Fault(kind, at), "cleaning": cleaning}

    def _kills(self) -> Iterator[tuple[str, dict[str, Any]]]:
        # Before a call is after the one before it, but for a write that has begun.
        for at, (name, where) in enumerate(self.clean.calls, start=1):
            if name in ("write", "save_file", "np.save") or at == 1:
                yield f"killed within {name} {where}", {"fault": Fault("kill before", at)}
            yield f"killed after {name} {where}", {"fault": Fault("kill after", at)}

    def _kills_from_outside(self) -> Iterator[tuple[str, dict[str, Any]]]:
        draw = random.Random(self.scenario.name)  # noqa: S311 - the same at every run is what is wanted
        for _ in range(OUTSIDE):
            share = draw.random()
            yield f"killed at {share:.0%} of its time", {"amount": share * self.clean.seconds}

    def _limits(self) -> Iterator[tuple[str, dict[str, Any]]]:
        sizes = [size for size in self.clean.sizes if size]
        for limit in sorted({size // 2 for size in sizes} | {size - 1 for size in sizes}):
            yield f"files of {limit} bytes at most", {"amount": limit}

    def _full_disks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if os.geteuid():
            return
        step = max(1, self.clean.blocks // FULL)
        for blocks in range(0, FULL * step, step):
            yield f"a disk with {blocks} blocks left", {"amount": blocks}

    def _read_only(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if os.geteuid():
            return
        for folder in self.clean.folders:
            yield f"{folder} is read-only", {"folder": folder}

    def try_case(self, case: Case) -> tuple[str, list[str]]:
        """How the job ended (done, refused, killed, not reached), and what was lost or wrong."""
        self._fresh()
        if case.kind == "full":
            return self._try_on_a_full_disk(case)
        outcome, findings = self._spoiled(case)
        return self._afterwards(case, outcome, findings)

    def _try_on_a_full_disk(self, case: Case) -> tuple[str, list[str]]:
        size = (1 + _blocks(self._before) + round(case.amount)) * TMPFS_BLOCK
        shutil.rmtree(self.home)
        self.home.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.home)]
        if subprocess.run(mount, capture_output=True).returncode:
            return "skipped: tmpfs cannot be mounted", []
        try:
            shutil.copytree(self._before, self.home, symlinks=True, dirs_exist_ok=True)
            outcome, findings = self._spoiled(case)
            subprocess.run(["mount", "-o", "remount,size=256m", str(self.home)], check=True, capture_output=True)
            return self._afterwards(case, outcome, findings)
        finally:
            subprocess.run(["umount", "-l", str(self.home)], check=True, capture_output=True)

    def _spoiled(self, case: Case) -> tuple[str, list[str]]:
        """The job with its fault."""
        faulty = Faulty(self.home, case.fault)

        def work() -> object:
            if case.fault is not None:
                faulty.install()
            if case.kind == "size":
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(case.amount), resource.RLIM_INFINITY))
            if case.kind == "read-only":
                self.scenario.job(self._kit, self._twin())  # imports what that user may not read
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            ended = self.scenario.job(self._kit, self.home)
            return [ended.code, ended.said, faulty.hit]

        if case.kind == "read-only":
            _give_away(self.home)
            (self.home / case.folder).chmod(0o555)
        status, told = in_a_fork(work, kill_after_s=case.amount if case.kind == "outside" else None)
        if case.kind == "read-only":
            (self.home / case.folder).chmod(0o755)
        if os.WIFSIGNALED(status):
            meant = os.WTERMSIG(status) == signal.SIGKILL and case.kind in ("kill", "outside")
            return "killed", [] if meant else [f"ended by signal {os.WTERMSIG(status)}"]
        if "raised" in told:
            return "refused", [told["raised"]]
        if case.kind == "kill":
            return "not killed", ["it was not killed"]
        code, said, hit = told["value"]
        if case.fault is not None and not hit:
            return "not reached", []
        return ("refused", _faults_of_words(code, said)) if code else ("done", [])

    def _afterwards(self, case: Case, outcome: str, findings: list[str]) -> tuple[str, list[str]]:
        """The same, with what is lost after the fault, and after the job was run again."""
        if outcome in ("done", "refused") and not case.cleaning and (left := leftovers(self.home)):
            findings.append(f"left behind: {', '.join(left)}")

        def look_and_go_on() -> object:
            lost, same, asks = "", True, False
            try:
                self.scenario.check(self.home)
                same = outcome != "done" or self._same(self.scenario.result(self.home))
            except Exception as exc:  # noqa: BLE001 - whatever a reader of torn files raises
                # A kill between two moves of an export may cost the old one, if a reader says so; a failure may not.
                asks = outcome == "killed" and "export again" in str(getattr(exc, "hint", ""))
                lost = "" if asks else f"{type(exc).__name__}: {exc}"
            ended = self.scenario.job(self._kit, self.home)
            again = ended.code == 0 and self._same(self.scenario.result(self.home))
            return [lost, same, asks, ended.code, ended.said, again]

        status, told = in_a_fork(look_and_go_on)
        if status or "raised" in told:
            return outcome, [*findings, f"run again: {told['raised'] if told else f'ended with {status}'}"]
        lost, same, asks, code, said, again = told["value"]
        if lost:
            findings.append(f"lost: {lost}")
        if not same:
            findings.append("done, with another result")
        if code:
            findings.append(f"run again, exit code {code}: {said[-300:]}")
        elif not again:
            findings.append("run again, it gives another result")
        unfinished = [path.name for path in self.home.rglob("*") if path.suffix in self.scenario.goes_on]
        if not case.cleaning and (left := leftovers(self.home) + unfinished):
            findings.append(f"not swept by the next run: {', '.join(left)}")
        return ("killed, to be exported again" if asks else outcome), findings

    def _same(self, result: object) -> bool:
        return bool(json.loads(json.dumps(result)) == self.clean.result)


def _faults_of_words(code: int, said: str) -> list[str]:
    """What a user should not see where a file could not be written."""
    lines = [line for line in said.splitlines() if not line.startswith("warning: ")]
    starts = [line.partition(" ")[0] for line in lines]
    if code == 1 and starts in (["error:"], ["error:", "hint:"]) and "defect of tinyres" not in said:
        return []
    return [f"exit code {code}: {' | '.join(lines)[:300]}"]


def _blocks(folder: Path) -> int:
    """What a tmpfs needs for a copy."""
    return sum(-(-path.stat().st_size // TMPFS_BLOCK) for path in folder.rglob("*") if path.is_file())


def _give_away(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def warm_up() -> None:
    """Import all that jobs use, once and not in every fork. Nothing here may start a thread."""
    import rich.progress  # noqa: F401

    import tinyres.bench
    import tinyres.export

    for package in (tinyres, tinyres.export, tinyres.bench):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not re.search(r"templates|__main__|embed|tensorrt|openvino|peers", module.name):
                with contextlib.suppress(ImportError):  # of what an extra brings
                    importlib.import_module(module.name)
    CliRunner().invoke(app, ["recipes", "--json"])
    gc.collect()
    gc.freeze()  # a fork copies no more than it changes


def faults(kit: Path, asked: Asked) -> dict[str, Any]:
    """Try the cases that are asked for, in as many processes as there are cores."""
    parts = min(os.cpu_count() or 1, 8)
    with scratch_folder() as scratch:
        rigs = [
            Rig(scenario, kit, scratch / name) for name, scenario in scenarios().items() if asked.only in (None, name)
        ]
        workers = []
        for part in range(parts):
            own = scratch / str(part)
            own.mkdir()
            workers.append(os.fork())
            if workers[-1] == 0:
                _work(rigs, asked, own, part, parts)
        ended = [os.waitpid(worker, 0)[1] for worker in workers]
        if any(ended):
            logs = [log.read_text(encoding="utf-8")[-3000:] for log in scratch.glob("*/log")]
            raise SystemExit(f"processes of this program failed, {ended}:\n" + "\n".join(logs))
        lines = [line for part in range(parts) for line in (scratch / str(part) / "told").read_text().splitlines()]
    return summed(map(json.loads, lines))


def _work(rigs: list[Rig], asked: Asked, own: Path, part: int, parts: int) -> NoReturn:
    """Try a part of the cases of each scenario, in a folder of its own, and end the process."""
    status = 1
    try:
        with (own / "told").open("w", buffering=1, encoding="utf-8") as told:
            for rig in rigs:
                rig.home = own / "home"
                cases = [case for case in rig.cases(asked.kinds) if asked.number in (None, case.number)]
                for case in cases[:: asked.every][part::parts]:
                    outcome, findings = rig.try_case(case)
                    told.write(json.dumps([case.scenario, case.kind, case.number, case.what, outcome, findings]) + "\n")
        status = 0
    except BaseException:  # noqa: BLE001 - told to the parent
        (own / "log").write_text(traceback.format_exc(), encoding="utf-8")
    os._exit(status)


def summed(told: Iterable[Any]) -> dict[str, Any]:
    """The report on all cases."""
    counts: dict[str, Counter[str]] = {}
    outcomes: Counter[str] = Counter()
    findings: list[dict[str, object]] = []
    for name, kind, number, what, outcome, found in told:
        counts.setdefault(name, Counter())[kind] += 1
        outcomes[outcome] += 1
        findings += [{"scenario": name, "kind": kind, "case": number, "fault": what, "what": text} for text in found]
    lost = sum("lost" in str(finding["what"]) for finding in findings)
    total = sum(outcomes.values())
    return {"faults": total, "tried": counts, "outcomes": outcomes, "lost": lost, "findings": findings}


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """In memory where that can be had: thousands of jobs wait for no disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
    with tempfile.TemporaryDirectory(
        prefix="tinyres-faults-", dir=memory if os.access(memory, os.W_OK) else None
    ) as name:
        Path(name).chmod(0o755)  # for the user without rights
        yield Path(name)


def try_situations(kit: Path, only: str | None = None) -> tuple[list[str], list[dict[str, object]]]:
    """Two processes at once, clocks that jump, files that vanish: the names of all, and what went wrong."""
    names, findings = [], []
    for name, situation in situations().items():
        if only not in (None, name):
            continue
        names.append(name)
        with scratch_folder() as scratch:
            home = scratch / "home"
            home.mkdir()
            status, told = in_a_fork(partial(situation, kit, home))
            if status or "raised" in told:
                said = told["raised"] if told else f"ended with {status}"
                findings.append({"scenario": name, "kind": "situation", "what": said})
    return names, findings


def main() -> int:
    """Try all and print; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="SCENARIO", help=f"valid: {', '.join((*scenarios(), *situations()))}")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--case", type=int, help="of that kind and scenario")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth case")
    parser.add_argument("--kit", type=Path, help="kept there, and used again")
    words = parser.parse_args()
    if words.only is not None and words.only not in {*scenarios(), *situations()}:
        parser.error(f"there is no scenario {words.only!r}")
    asked = Asked(words.only, (words.kind,) if words.kind else KINDS, words.case, words.every)
    started = time.monotonic()
    warm_up()
    with scratch_folder() as folder:
        kit = words.kit or folder / "kit"
        if not kit.exists():
            in_a_fork(lambda: make_kit(kit))
        found = faults(kit, asked)
        found["situations"], more = try_situations(kit, asked.only) if words.kind is None else ([], [])
    found["findings"] += more
    found["skipped"] = [] if os.geteuid() == 0 else ["full and read-only: they need root"]
    found["seconds"] = round(time.monotonic() - started)
    print(json.dumps(found, indent=1))
    print(
        f"{found['faults']} faults, {len(found['situations'])} situations; lost: {found['lost']},"
        f" findings: {len(found['findings'])}",
        file=sys.stderr,
    )
    return int(bool(found["findings"]))


if __name__ == "__main__":
    sys.exit(main())
