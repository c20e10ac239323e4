"""Run folders: what a training leaves behind, how a run is named, found and locked, and what MODEL may stand for.

runs/<name>/config.json            what was asked: recipe, data, seed, ModelSpec
env.json               machine and versions
state.json             running, stopped, finished, failed or imported
best.safetensors       the weights of the best epoch; a folder of shipped weights has only the last epoch's
final.safetensors      the weights of the last epoch, once there is one
last.safetensors       everything needed to go on
summary.json           what the last and best weights are worth, once it is finished
history.json           one record an epoch
training_history.json  the same in the seed's form
curves.png  train.log
export/  bench/
"""

from __future__ import annotations

import datetime as dt
import math
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tinyres import records, weights
from tinyres.environment import Environment
from tinyres.errors import CheckpointError, InputError, StorageError, UsageError, suggest
from tinyres.files import at_home, remove, storage_errors
from tinyres.recipes import Recipe
from tinyres.spec import ModelSpec
from tinyres.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

SCHEMA = 1
RUN_NAME = r"(?!(con|prn|aux|nul|com\d|lpt\d)(\.|$))\w([\w.-]*[\w-])?"
"""A folder's name on every system: Windows keeps some for devices, and drops a dot at the end."""
DEMO_RUN = "demo"
"""`tinyres demo` writes here; it is never taken for the newest run."""

MOST_LOSS = 1e39
"""More than any mean of losses in float32."""
_LOSSES = ("train_loss", "val_loss")
_RANGES = {
    ("epoch", "step", "val_images", "lr", "seconds"): 10**12,
    ("images_per_second",): sys.float_info.max,
    ("train_acc", "val_acc"): 1,
    _LOSSES: MOST_LOSS,
}
"""The fields of an epoch that are neither negative nor more: what is drawn and summed must not overflow."""

JudgedOn = Literal["val", "holdout"]
State = Literal["running", "stopped", "finished", "failed", "imported"]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What a run was asked to do."""

    schema: int
    name: str
    created: str
    """UTC, ISO 8601."""
    data: str
    """As given: a known name, or the path of a folder or zip (the one place that keeps it)."""
    data_kind: str
    data_fingerprint: str
    judged_on: JudgedOn
    seed: int
    recipe: Recipe | None
    """None for an imported checkpoint."""
    spec: ModelSpec
    started_from: str = ""
    """SHA-256 of the checkpoint that --init named; empty for random weights."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time, on a GPU too."""


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands."""

    state: State
    epochs: int
    """Finished."""
    message: str


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of a run's history."""

    epoch: int
    """From 1."""
    step: int
    """Optimizer steps so far."""
    complete: bool
    """False for the last line of a run that stopped inside an epoch."""
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    val_images: int
    """Judged on so many; fewer than the split has only where a run had to stop in time."""
    lr: float
    """At the epoch's end."""
    seconds: float
    images_per_second: float

    def __post_init__(self) -> None:
        for names, most in _RANGES.items():
            for name in names:
                value = getattr(self, name)
                diverged = name in _LOSSES and not math.isfinite(value)
                if not diverged and not 0 <= value <= most:
                    raise UsageError(f"{name} of an epoch is out of range; valid: 0 to {most:g}")


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder; nothing is read before it is asked for."""

    path: Path

    def __repr__(self) -> str:
        try:
            state, history = self.state(), self.history()
        except InputError:  # it is being made, or damaged: what is shown never fails
            return f"Run({str(self.path)!r})"
        best = max(history, key=merit, default=None)
        reached = f", best epoch {best.epoch}: {best.val_acc:.1%} of {best.val_images:,} images" if best else ""
        why = f" ({state.message})" if state.message else ""
        return f"Run({str(self.path)!r}: {state.state}{why}, {counted(len(history), 'epoch')}{reached})"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def best(self) -> Path:
        """The exported weights."""
        return self.path / "best.safetensors"

    @property
    def final(self) -> Path:
        """The last epoch's weights."""
        return self.path / "final.safetensors"

    @property
    def weights(self) -> Path:
        """What the run stands for: its best weights, or its last where only they were kept."""
        return self.final if self.final.is_file() and not self.best.is_file() else self.best

    @property
    def last(self) -> Path:
        """The state to resume from."""
        return self.path / "last.safetensors"

    def config(self) -> RunConfig:
        """What was asked. Errors: InputError."""
        return records.load(RunConfig, self.path / "config.json")

    def require_folder(self) -> None:
        """Errors: StorageError if the folder was removed: a write would make a new one, with little in it."""
        if not (self.path / "config.json").is_file():
            raise StorageError(f"the run's folder {self.path} is gone", hint="tinyres train starts a new run")

    @property
    def told_again(self) -> str:
        """What resuming it comes to."""
        if self.is_in("finished"):
            return f"run {self.name} is finished, and judged again; --init {self.name} trains on from its weights"
        return f"run {self.name} goes on"

    def is_in(self, state: State) -> bool:
        """Whether it is known to be in that state."""
        with suppress(InputError):
            return self.state().state == state
        return False

    def state(self) -> RunState:
        """Where it stands. Errors: InputError."""
        return records.load(RunState, self.path / "state.json")

    def set_state(self, state: State, *, epochs: int, message: str = "") -> None:
        """Record where it stands."""
        records.save(self.path / "state.json", RunState(state, epochs, message))

    def history(self) -> list[Epoch]:
        """All lines so far. Errors: InputError."""
        return records.load(list[Epoch], self.path / "history.json")

    def save_history(self, history: list[Epoch]) -> None:
        """Write both forms of the history."""
        records.save(self.path / "history.json", [_as_dict(epoch) for epoch in history])
        records.save(
            self.path / "training_history.json",
            {
                key: [getattr(epoch, key) for epoch in history]
                for key in ("train_loss", "train_acc", "val_loss", "val_acc", "lr")
            },
        )

    def lock(self) -> AbstractContextManager[object]:
        """Hold the run; the lock dies with its process. Errors: UsageError if another holds it; StorageError."""
        from filelock import FileLock, Timeout  # a third of the start-up of commands that never lock

        lock = FileLock(self.path / ".lock", timeout=0)
        with storage_errors(self.path):
            try:
                return lock.acquire()
            except Timeout as exc:
                raise UsageError(f"the run {self.name} is in use by another process", hint="wait for it") from exc


def merit(epoch: Epoch) -> tuple[int, float, int]:
    """What makes an epoch the best: judged on as many images as any other, then accuracy, then the later one."""
    return epoch.val_images, epoch.val_acc, epoch.step


def _as_dict(epoch: Epoch) -> dict[str, object]:
    return {name: getattr(epoch, name) for name in Epoch.__dataclass_fields__}


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")


def create_run(runs: Path, name: str | None, *, stem: str) -> Run:
    """Make the folder of a new run: `name`, or `stem` with the next free number.

    Errors: UsageError for a name that is taken or no folder name; StorageError.
    """
    if name is not None and not re.fullmatch(RUN_NAME, name, re.IGNORECASE):
        raise UsageError(
            f"--name {name!r} is no run name",
            hint="letters, digits, - _ . and no spaces; the first a letter, digit or _, the last no dot; no device",
        )
    with storage_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
        if name is not None:
            path = runs / name
            if path.exists():
                resumable = f"tinyres train --resume {name}, or " if Run(path).last.is_file() else ""
                raise UsageError(f"there is a run {name!r} already", hint=f"{resumable}another --name")
            path.mkdir()
            return Run(path)
        number = 1
        while True:
            try:
                (runs / f"{stem}-{number}").mkdir()
            except FileExistsError:
                number += 1
                continue
            return Run(runs / f"{stem}-{number}")


def save_config(run: Run, config: RunConfig, environment: Environment) -> None:
    """Write what was asked of a new run and where; if that fails its folder goes, and its name is free.

    Errors: StorageError.
    """
    try:
        records.save(run.path / "config.json", config)
        records.save(run.path / "env.json", environment)
    except StorageError:
        with suppress(StorageError):
            remove(run.path)
        raise


def list_runs(runs: Path) -> Iterator[Run]:
    """Every run folder, in order of names."""
    if runs.is_dir():
        for path in sorted(runs.iterdir()):
            if (path / "config.json").is_file():
                yield Run(path)


@dataclass(frozen=True, slots=True)
class Model:
    """What MODEL stands for."""

    path: Path
    """A checkpoint (.safetensors) or an artifact."""
    run: Run | None
    """The run it belongs to, if any."""
    home: Path
    """The folder that export/ and bench/ belong into: the run's, or the file's; shipped weights' is in `runs`."""
    how: Literal["file", "run", "newest run", "shipped"]
    """By what it was found."""

    @property
    def name(self) -> str:
        """The run's, or the file's."""
        return self.run.name if self.run else self.path.stem

    @property
    def told(self) -> str:
        """Which one was taken, and how it came to that."""
        which = {"newest run": "the newest run", "shipped": "shipped weights"}.get(self.how, "model")
        newest = self.run if self.how == "newest run" else None
        unfinished = ", whose training is not finished" if newest and newest.is_in("stopped") else ""
        return f"{which}: {self.name}{unfinished}" + (f" ({self.path.name})" if self.how in ("run", "file") else "")

    @property
    def exports(self) -> Path:
        """Where its artifacts go."""
        return self.home / "export"


def find_model(text: str | None, runs: Path) -> Model:
    """Resolve a run's name or path, a checkpoint, an artifact or the name of shipped weights; None is the newest run.

    Errors: UsageError, CheckpointError.
    """
    if text is None:
        run = _newest(runs)
        return Model(run.weights, run, run.path, "newest run")
    path = at_home(text)
    for folder in (path, runs / text):
        if (folder / "config.json").is_file():
            run = Run(folder)
            if not run.weights.is_file():
                mend = f"tinyres train --resume {run.name}" if run.last.is_file() else "tinyres train starts a new one"
                raise CheckpointError(f"the run {run.name} has no checkpoint yet", hint=mend)
            return Model(run.weights, run, folder, "run")
    if (shipped := weights.folder(text)) is not None:
        run = Run(shipped)
        return Model(run.weights, run, runs / text, "shipped")
    if path.is_dir():
        runs_here = suggest(text, [run.name for run in list_runs(runs)])
        raise CheckpointError(f"{text} is a folder without config.json, so no run", hint=runs_here)
    if path.is_file():
        if path.suffix in (".pth", ".pt"):
            raise CheckpointError(f"{text} is a PyTorch file, not a checkpoint of ours", hint=f"tinyres import {text}")
        # runs/<name>/best.safetensors, or runs/<name>/export/<file>
        homes = [home for home in list(path.absolute().parents)[:2] if (home / "config.json").is_file()]
        home = homes[0] if homes else None
        return Model(path, Run(home) if home else None, home or path.parent, "file")
    names = [run.name for run in list_runs(runs)] + weights.names()
    raise UsageError(f"there is no model {text!r}: no run, checkpoint or artifact", hint=suggest(text, names))


def find_run(text: str, runs: Path) -> Run:
    """The run with this name or path. Errors: UsageError."""
    for folder in (at_home(text), runs / text):
        if (folder / "config.json").is_file():
            return Run(folder)
    raise UsageError(f"there is no run {text!r}", hint=suggest(text, [run.name for run in list_runs(runs)]))


def _newest(runs: Path) -> Run:
    usable = []
    for run in list_runs(runs):
        try:
            if run.name != DEMO_RUN and run.best.is_file() and run.state().state in ("finished", "stopped", "imported"):
                usable.append((run.config().created, run.name, run))
        except InputError:  # a damaged run is not the newest; naming it shows what is wrong
            continue
    if not usable:
        raise UsageError(
            f"there is no finished run in {runs}",
            hint="tinyres train, or name a model (`nano` comes with tinyres, `demo` is the demo's)",
        )
    return max(usable)[2]
