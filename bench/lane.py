"""A contender with its process and what has been measured of it so far; in the end, its row."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinyres.bench.process import ContenderAbsent, ContenderFailed, WorkerProcess
from tinyres.bench.results import Block, ColdStart, Load, Measurement, Parity, Row, Status
from tinyres.runtime.runner import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from tinyres.bench.contenders import Contender
    from tinyres.metrics import Accuracy


@dataclass(slots=True)
class Series:
    """A batch size, or a number of clients, while it is measured."""

    warm: dict[str, Any] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    device_ns: dict[str, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Lane:
    """One contender on its way through the bench. What it fails at ends its way, and no other's."""

    contender: Contender
    worker: WorkerProcess = field(init=False)
    """From its opening on."""
    opened: dict[str, Any] = field(default_factory=dict)
    cold: list[ColdStart] = field(default_factory=list)
    single_s: float = 0.0
    """About how long one picture takes."""
    logits: NDArray[np.float32] | None = None
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

    @property
    def running(self) -> bool:
        """It has neither failed nor been left out."""
        return self.status == "ok"

    @property
    def precision(self) -> Precision:
        """As the backend reported it."""
        return Precision(self.opened["storage"], self.opened["compute"])

    @contextlib.contextmanager
    def costs_its_row(self) -> Iterator[None]:
        """What fails within ends this contender's way."""
        try:
            yield
        except ContenderFailed as exc:
            self.leave("skipped" if isinstance(exc, ContenderAbsent) else "failed", str(exc))

    def leave(self, status: Status, reason: str) -> None:
        """End the way."""
        self.status, self.reason = status, reason

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
            reason=self.reason.replace(f"{self.contender.path.parent}/", ""),
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
                Measurement(batch, found.warm["runs"], found.warm["steady"], found.blocks, found.device_ns)
                for batch, found in sorted(self.by_batch.items())
                if shown
            ],
            loads=[Load(clients, found.blocks) for clients, found in sorted(self.by_clients.items()) if shown],
            warning=self.contender.warning,
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
        status="skipped",
        reason=contender.absent,
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
