"""A contender with its process and what has been measured of it so far; in the end, its row."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyres.bench.process import OPEN_LIMIT_S, AnsweredWrongly, ContenderAbsent, ContenderFailed, WorkerProcess
from tinyres.bench.results import Block, ColdStart, Load, Measurement, Parity, Row, Status
from tinyres.environment import without_folders
from tinyres.runtime.runner import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.bench.contenders import Contender
    from tinyres.metrics import Accuracy


BATCH = 32
"""Pictures are judged so many at a time."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What every contender's process is started with, alike."""

    threads: int
    cores: list[int]
    images: Path
    folder: Path
    """For what a process leaves to the next."""
    command: Sequence[str] = ()
    """Of a process; empty for ours."""


@dataclass(slots=True)
class Series:
    """A batch size, or a number of clients, while it is measured."""

    latency_s: float = 0.0
    """The median at the end of its last warm-up."""
    warmup_runs: int = 0
    steady: bool = True
    blocks: list[Block] = field(default_factory=list)
    device_ns: dict[str, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Lane:
    """One contender on its way through the bench. What it fails at ends its way, and no other's."""

    contender: Contender
    setting: Setting
    process: WorkerProcess | None = None
    opened: dict[str, Any] = field(default_factory=dict)
    cold: list[ColdStart] = field(default_factory=list)
    single_s: float = 0.0
    """About how long one picture takes."""
    open_s: float = 0.0
    """How long its first opening took, all of it, and..."""
    warm_s: float = 0.0
    """... its first warm-ups."""
    logits: NDArray[np.float32] | None = None
    largest_error: float = 0.0
    """By which answers may differ from these, as a share of the part that depends on the picture."""
    accuracy: Accuracy | None = None
    gained: int = 0
    lost: int = 0
    parity: Parity | None = None
    by_batch: dict[int, Series] = field(default_factory=dict)
    by_clients: dict[int, Series] = field(default_factory=dict)
    peak_bytes: int | None = None
    device_bytes: int | None = None
    status: Status = "ok"
    reason: str = ""
    stopped: str = ""
    """What it failed at after the batch sizes that were asked for; empty if nothing."""
    abandoned: bool = False

    @property
    def worker(self) -> WorkerProcess:
        """The process it has now. Errors: ContenderFailed before the first."""
        if self.process is None:
            raise ContenderFailed("it was never opened")
        return self.process

    @property
    def running(self) -> bool:
        """It has neither failed nor been left out."""
        return self.status == "ok" and not self.stopped

    @property
    def precision(self) -> Precision:
        """As the backend reported it."""
        return Precision(self.opened["storage"], self.opened["compute"])

    def open(self, *, alone: bool = True) -> None:
        """Begin with a fresh process; a cold start if nothing else is going on. Errors: ContenderFailed."""
        started, setting, contender = time.monotonic(), self.setting, self.contender
        self.close()
        # What torch.compile keeps is kept for the next process of this contender, and from no earlier bench: the first
        # start is cold, and no other one is where something is compiled.
        kept = setting.folder / contender.name.replace(" ", "-")
        self.process = WorkerProcess(setting.command, environment={"TORCHINDUCTOR_CACHE_DIR": str(kept)})
        if self.abandoned:  # the user asked for the end while this one began
            self.process.kill()
        reply = self.opened = self.process.ask(
            "open",
            path=str(contender.path),
            backend=contender.backend,
            way=contender.way or None,
            threads=setting.threads,
            cores=setting.cores,
            images=str(setting.images),
            limit_s=OPEN_LIMIT_S,
        )
        if alone and not (self.cold and contender.compiles):
            self.cold.append(ColdStart(reply["import_s"], reply["load_s"], reply["first_s"]))
        if self.logits is not None:  # it must still be what was judged
            path = setting.folder / f"{kept.name}.npy"
            np.save(path, self.logits)
            asked: dict[str, Any] = {
                "kept": str(path),
                "count": len(self.logits),
                "batch": BATCH,
                "share": self.largest_error,
            }
            if not self.process.ask("recall", **asked)["holds"]:
                raise ContenderFailed("its answers differ from one process to the next")
        self.open_s = self.open_s or time.monotonic() - started

    def close(self) -> None:
        """End its process."""
        if self.process is not None:
            self.process.close()

    @contextlib.contextmanager
    def costs_its_row(self) -> Iterator[None]:
        """What fails within ends this contender's way."""
        try:
            yield
        except ContenderFailed as exc:
            if not self.abandoned:
                absent = isinstance(exc, ContenderAbsent) and not self.cold  # what opened once is not absent
                self.leave("skipped" if absent else "failed", str(exc))

    @contextlib.contextmanager
    def costs_the_rest(self, what: str) -> Iterator[None]:
        """What fails within ends the way here, but keeps what was measured; only wrong answers cost it all."""
        try:
            yield
        except AnsweredWrongly as exc:
            self.leave("failed", str(exc))
        except ContenderFailed as exc:
            if not self.abandoned:
                self.stopped = f"{what}: {exc}"
                self.end_process()

    def leave(self, status: Status, reason: str) -> None:
        """End the way, and give back the memory."""
        self.status, self.reason = status, reason
        self.end_process()

    def end_process(self) -> None:
        """End the process at once."""
        if self.process is not None:
            self.process.kill()

    def abandon(self) -> None:
        """End the process because the user wants no more; that is no failure of it."""
        self.abandoned = True
        self.end_process()

    def row(self) -> Row:
        """All of it."""
        shown = self.status != "failed"  # of one that failed on the way, no figure is to be believed
        return Row(
            name=self.contender.name,
            backend=self.contender.backend,
            way=self.contender.way,
            artifact=self.contender.path.name,
            artifact_sha256=self.contender.sha256,
            artifact_bytes=self.contender.path.stat().st_size,
            status=self.status,
            reason=without_folders(self.reason),
            proof=self.contender.proof,
            levels=list(self.contender.levels),
            device=self.opened.get("device", ""),
            evidence=self.opened.get("evidence", ""),
            precision=self.precision if self.opened else None,
            cold=self.cold,
            peak_memory_bytes=self.peak_bytes,
            device_memory_bytes=self.device_bytes,
            accuracy=self.accuracy,
            gained=self.gained,
            lost=self.lost,
            parity=self.parity,
            measurements=[
                Measurement(batch, found.warmup_runs, found.steady, found.blocks, found.device_ns)
                for batch, found in sorted(self.by_batch.items())
                if shown
            ],
            loads=[Load(clients, found.blocks) for clients, found in sorted(self.by_clients.items()) if shown],
            warning=without_folders("; ".join(filter(None, (self.contender.warning, self.stopped)))),
        )


def absent_row(contender: Contender) -> Row:
    """Of a contender that takes no part."""
    return Row(
        name=contender.name,
        backend=contender.backend,
        way=contender.way,
        artifact=contender.path.name if contender.sha256 else "",
        artifact_sha256=contender.sha256,
        artifact_bytes=contender.path.stat().st_size if contender.sha256 else 0,
        status="failed" if contender.refused else "skipped",
        reason=without_folders(contender.absent),
        proof=contender.proof,
        levels=list(contender.levels),
        device="",
        evidence="",
        precision=None,
        cold=[],
        peak_memory_bytes=None,
        device_memory_bytes=None,
        accuracy=None,
        gained=0,
        lost=0,
        parity=None,
        measurements=[],
        loads=[],
    )
