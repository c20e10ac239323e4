"""What single calls that fail do not show, for `faults.py`: two processes at once, clocks that jump, files that vanish.

Each situation runs in a process of its own with an empty home, and raises if something is lost.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fault_scenarios as jobs
import filelock
import numpy as np
from fault_scenarios import Ended, LostError
from faulty import replace

from tinyres import records, runs
from tinyres.data import cache
from tinyres.data.dataset import open_dataset, read_cache
from tinyres.data.store import FolderStore
from tinyres.errors import DataError, ProofError, TinyresError
from tinyres.export import golden
from tinyres.export.certificate import read_certificate
from tinyres.runs import Run, find_model, list_runs
from tinyres.training.trainer import Trainer

Situation = Callable[[Path, Path], object]


def situations() -> dict[str, Situation]:
    """All of them, by what happens."""
    found: dict[str, Situation] = {
        "two trainings of one run": _two_trainings,
        "two builders of one cache": _two_builders,
        "a holder of the run's lock is killed": _killed_holder,
        "pictures vanish while they are decoded": _pictures_vanish,
        "a cache without its manifest": _cache_without_manifest,
        "the run's folder vanishes in training": _run_vanishes,
    }
    for step in range(6):
        found[f"two exports, one stopped before move {step}"] = partial(_exports_interleaved, step)
    for name in ("train.images.npy", "val.images.npy", "done.jsonl", "train.labels.npy"):
        found[f"{name} of an unfinished cache vanishes"] = partial(_partial_vanishes, name)
    for name in ("train.images.npy", "train.labels.npy", "val.images.npy", "val.labels.npy"):
        found[f"{name} of a cache vanishes"] = partial(_array_vanishes, name)
    for name in ("best.safetensors", "history.json", "training_history.json", "state.json", "env.json", "summary.json"):
        found[f"{name} vanishes before a resume"] = partial(_vanishes_before_resume, name)
    for name in ("best.safetensors", "last.safetensors", "history.json", "state.json", "train.log", ".lock"):
        found[f"{name} vanishes in training"] = partial(_vanishes_in_training, name)
    found["last.safetensors vanishes before a resume"] = _nothing_to_resume
    for name in ("fp32.onnx.json", "fp32.onnx.golden.npz", "fp32.onnx.golden.json", "fp32.onnx"):
        found[f"{name} vanishes"] = partial(_export_vanishes, name)
    for name in CLOCKS:
        found[f"clock: {name}"] = partial(_clock_jumps, name)
    return found


class Other:
    """Another process, which says when it has come to a place and waits there."""

    def __init__(self, work: Callable[[Callable[[], None]], Ended]) -> None:
        arrived, self._arrived = os.pipe()[::-1]
        self._go, go = os.pipe()[::-1]
        self._ended, ended = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:

            def wait_here() -> None:
                os.write(arrived, b".")
                os.read(go, 1)

            try:
                done = work(wait_here)
                os.write(ended, json.dumps([done.code, done.said]).encode())
            finally:
                os._exit(0)
        for handle in (arrived, go, ended):
            os.close(handle)

    def until_there(self) -> None:
        """Wait until it has arrived."""
        if os.read(self._arrived, 1) != b".":
            raise LostError(f"the other process ended too early: {self._result()}")

    def finish(self) -> Ended:
        """Let it go on, and wait for its end."""
        os.write(self._go, b".")
        return self._result()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _result(self) -> Ended:
        with os.fdopen(self._ended, "rb") as file:
            told = file.read()
        os.waitpid(self.pid, 0)
        return Ended(*json.loads(told or b'[-1, "it died"]'))


def _expect(ended: Ended, code: int, text: str = "") -> None:
    if ended.code != code or text not in ended.said or "defect of tinyres" in ended.said:
        raise LostError(f"expected {code} and {text!r}, not {ended.code}: {ended.said}")


def _equal(found: object, expected: object) -> None:
    if json.loads(json.dumps(found)) != json.loads(json.dumps(expected)):
        raise LostError("the result is another one than without the disturbance")


def _clean(scenario: str, kit: Path, home: Path) -> object:
    """The result of an undisturbed job, beside `home`."""
    chosen = jobs.scenarios()[scenario]
    beside = home.with_name("undisturbed")
    beside.mkdir(parents=True)
    chosen.prepare(kit, beside)
    _expect(chosen.job(kit, beside), 0)
    return chosen.result(beside)


def _at_step(count: int, act: Callable[[], object]) -> None:
    """`act` before the training's step `count`, counted from 1, in this process."""
    real, left = Trainer.train_step, [count]

    def train_step(trainer: Trainer) -> int:
        left[0] -= 1
        if left[0] == 0:
            act()
        return real(trainer)

    replace(Trainer, "train_step", train_step)


def _training(kit: Path, home: Path, wait_here: Callable[[], None]) -> Ended:
    _at_step(3, wait_here)
    return jobs.train(kit, home)


def _two_trainings(kit: Path, home: Path) -> None:
    expected = _clean("train", kit, home)
    jobs.place_cache(kit, home)
    first = Other(partial(_training, kit, home))
    first.until_there()
    _expect(jobs.train(kit, home), 2, "in use by another process")
    _expect(first.finish(), 0)
    _equal(jobs.result_of_training(home), expected)


def _killed_holder(kit: Path, home: Path) -> None:
    expected = _clean("train", kit, home)
    jobs.place_cache(kit, home)
    first = Other(partial(_training, kit, home))
    first.until_there()
    first.kill()
    _expect(jobs.train(kit, home), 0)
    _equal(jobs.result_of_training(home), expected)


def _two_builders(kit: Path, home: Path) -> None:
    expected = _clean("cache", kit, home)

    def build(wait_here: Callable[[], None]) -> Ended:
        real = cache._decode
        told: list[bool] = []

        def decode(*arguments: Any) -> Any:
            if not told:
                told.append(True)
                wait_here()
            return real(*arguments)

        replace(cache, "_decode", decode)
        return jobs.build_cache(kit, home)

    def wait_and_open(wait_here: Callable[[], None]) -> Ended:
        real: Callable[[Any], None] = filelock.FileLock._acquire
        told: list[bool] = []

        def acquire(lock: Any) -> None:
            real(lock)
            if not told:
                told.append(True)
                if lock.is_locked:
                    raise LostError("two builders hold the lock")
                wait_here()

        replace(filelock.FileLock, "_acquire", acquire)
        replace(cache, "_build", None)  # it finds the other's
        return jobs.build_cache(kit, home)

    first = Other(build)
    first.until_there()
    second = Other(wait_and_open)
    second.until_there()
    _expect(first.finish(), 0)
    _expect(second.finish(), 0)
    _equal(jobs.result_of_cache(home), expected)


def _exports_interleaved(step: int, kit: Path, home: Path) -> None:
    """An export of newer weights runs while another of older ones stands between two moves of its files."""
    jobs.prepare_export(kit, home)

    def export(wait_here: Callable[[], None]) -> Ended:
        real, moved = os.replace, [0]

        def move(source: Any, target: Any) -> None:
            if Path(target).parent.name == "export" and Path(source).parent.name.startswith("."):
                if moved[0] == step:
                    wait_here()
                moved[0] += 1
            real(source, target)

        replace(os, "replace", move)
        ended = jobs.export(kit, home)
        if moved[0] <= step:
            wait_here()
        return ended

    first = Other(export)
    first.until_there()
    shutil.copy(kit / "seed-0" / "run" / "best.safetensors", home / "runs" / "run" / "best.safetensors")
    _expect(jobs.export(kit, home), 0)
    _expect(first.finish(), 0)
    try:
        jobs.check_export(home)
    except ProofError as exc:
        if "export again" not in str(exc.hint):
            raise
    _expect(jobs.export(kit, home), 0)
    jobs.check_export(home)


def _pictures_vanish(kit: Path, home: Path) -> None:
    data = Path(shutil.copytree(kit / "data", home / "data"))
    gone = sorted((data / "train" / "circle").iterdir())[3]
    real = FolderStore.read

    def read(store: FolderStore, name: str) -> bytes:
        gone.unlink(missing_ok=True)
        return real(store, name)

    replace(FolderStore, "read", read)
    manifest = open_dataset(str(data), image_size=16, cache_dir=home / "cache").manifest
    if f"train/circle/{gone.name}" not in [picture.name for picture in manifest.unreadable]:
        raise LostError("a picture that vanished is not listed")


def _unfinished(kit: Path, home: Path) -> Path:
    """The folder of a build that was killed at its end, with the gaps closed."""

    def build(wait_here: Callable[[], None]) -> Ended:
        replace(records, "save", lambda *_: wait_here())
        return jobs.build_cache(kit, home)

    builder = Other(build)
    builder.until_there()
    builder.kill()
    (partial_folder,) = home.glob("cache/*.partial")
    return partial_folder


def _partial_vanishes(name: str, kit: Path, home: Path) -> None:
    expected = _clean("cache", kit, home)
    (_unfinished(kit, home) / name).unlink()
    _expect(jobs.build_cache(kit, home), 0)
    _equal(jobs.result_of_cache(home), expected)


def _cache_without_manifest(kit: Path, home: Path) -> None:
    expected = _clean("cache", kit, home)
    _expect(jobs.build_cache(kit, home), 0)
    next(home.glob("cache/*/manifest.json")).unlink()
    _expect(jobs.build_cache(kit, home), 0)
    _equal(jobs.result_of_cache(home), expected)


def _array_vanishes(name: str, kit: Path, home: Path) -> None:
    _expect(jobs.build_cache(kit, home), 0)
    (path,) = home.glob(f"cache/*/{name}")
    path.unlink()
    try:
        read_cache(path.parent, name="c")
    except DataError as exc:
        _expect(jobs.build_cache(kit, home), 2, f"hint: {exc.hint}")
        shutil.rmtree(path.parent)  # as the hint says
        _expect(jobs.build_cache(kit, home), 0)
        return
    raise LostError("the array is not missed")


def _begun(kit: Path, home: Path) -> Run:
    """A training that was killed within its second epoch."""
    jobs.place_cache(kit, home)

    def work(wait_here: Callable[[], None]) -> Ended:
        _at_step(4, wait_here)
        return jobs.train(kit, home)

    killed = Other(work)
    killed.until_there()
    killed.kill()
    (run,) = list_runs(home / "runs")
    return run


def _vanishes_before_resume(name: str, kit: Path, home: Path) -> None:
    expected = _clean("train", kit, home)
    run = _begun(kit, home)
    (run.path / name).unlink(missing_ok=True)
    _expect(jobs.train(kit, home), 0)
    _equal(jobs.result_of_training(home), expected)


def _nothing_to_resume(kit: Path, home: Path) -> None:
    run = _begun(kit, home)
    run.last.unlink()
    _expect(jobs.resume(home, run.name), 2, "has saved nothing to resume from")
    if find_model(run.name, home / "runs").path != run.best:
        raise LostError("its best weights are not found any more")


def _vanishes_in_training(name: str, kit: Path, home: Path) -> None:
    """Of the files of a run, in its second epoch: the next of the kind is written, or a line says what is gone."""
    jobs.place_cache(kit, home)

    def vanish() -> None:
        (run,) = list_runs(home / "runs")
        (run.path / name).unlink()

    _at_step(4, vanish)
    ended = jobs.train(kit, home)
    jobs.check_runs(home)
    if ended.code:
        _expect(ended, 2, name)
    (run,) = list_runs(home / "runs")
    if not run.final.is_file():
        raise LostError("a training that could go on did not")


def _run_vanishes(kit: Path, home: Path) -> None:
    jobs.place_cache(kit, home)
    _at_step(4, lambda: shutil.rmtree(home / "runs"))
    _expect(jobs.train(kit, home), 1, "folder")
    if (home / "runs").exists():
        raise LostError("something was written into a folder that had been removed")


def _export_vanishes(name: str, kit: Path, home: Path) -> None:
    jobs.prepare_export(kit, home)
    _expect(jobs.export(kit, home), 0)
    folder = home / "runs" / "run" / "export"
    (folder / name).unlink()
    try:
        read_certificate(folder / "fp32.onnx")
        golden.read_golden(folder / "fp32.onnx", find_spec(home))
    except TinyresError as exc:
        if "\n" in str(exc) or not str(exc):
            raise LostError(f"no line: {exc}") from exc
    _expect(jobs.export(kit, home), 0)
    jobs.check_export(home)


def find_spec(home: Path) -> Any:
    """The network of the export scenarios."""
    return Run(home / "runs" / "run").config().spec


# Clocks: what each answers, in seconds since 1970, at the Nth question

NOW = 1_790_000_000.0
CLOCKS: dict[str, Callable[[int], float]] = {
    "backwards by an hour each time": lambda number: NOW - 3600.0 * number,
    "back in 1970": lambda _: 1.0,
    "far ahead": lambda _: NOW + 200 * 365 * 86400,
    "to and fro by years": lambda number: NOW + (-1) ** number * 5 * 365 * 86400,
    "standing still": lambda _: NOW,
}


def _clock_jumps(name: str, kit: Path, home: Path) -> None:
    """A training that is killed and resumed, a cache, an export and the newest run, by a clock that jumps."""
    expected = [_clean(job, kit, home / job / "home") for job in ("train", "cache")]
    _set_clock(CLOCKS[name])
    one, other = home / "one", home / "other"
    for folder in (one, other):
        folder.mkdir()
    _begun(kit, one)
    _expect(jobs.train(kit, one), 0)
    _expect(jobs.build_cache(kit, other), 0)
    _equal([jobs.result_of_training(one), jobs.result_of_cache(other)], expected)
    for number in (1, 2):
        shutil.copytree(one / "runs" / "demo-1", one / "runs" / f"copy-{number}")
        config = json.loads((one / "runs" / f"copy-{number}" / "config.json").read_text())
        config["created"] = runs.now()
        (one / "runs" / f"copy-{number}" / "config.json").write_text(json.dumps(config))
    names = [run.name for run in list_runs(one / "runs")]
    if find_model(None, one / "runs").name not in names or len(names) != 3:
        raise LostError("the newest run is not found")
    if not np.isfinite([epoch.seconds for epoch in Run(one / "runs" / "demo-1").history()]).all():
        raise LostError("the history has no times")


def _set_clock(clock: Callable[[int], float]) -> None:
    asked = [0]

    def told() -> float:
        asked[0] += 1
        return clock(asked[0])

    class Jumping(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Jumping:
            return cls.fromtimestamp(told(), tz)

    replace(time, "time", told)
    replace(time, "time_ns", lambda: int(told() * 1e9))
    replace(dt, "datetime", Jumping)
