"""What a bench leaves, as versioned JSON: raw samples, accuracy, environment, command. No summary is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinyres.environment import Environment
from tinyres.metrics import Accuracy
from tinyres.runtime.runner import Precision

SCHEMA = 1

Status = Literal["ok", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The way to the first answer in a fresh process, in seconds."""

    import_s: float
    """Of the backend's library and tinyres's own code."""
    load_s: float
    """From the file to a runner."""
    first_s: float
    """The first answer, one picture."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The latency of one batch size: host array in, host logits out."""

    batch: int
    warmup_runs: int
    blocks_ns: list[list[int]]
    """Every timed run in nanoseconds, by block, in the order they were made."""

    @property
    def samples_s(self) -> list[float]:
        """All runs, in seconds."""
        return [sample / 1e9 for block in self.blocks_ns for sample in block]


@dataclass(frozen=True, slots=True)
class Row:
    """One contender."""

    name: str
    backend: str
    artifact: str
    """File name."""
    artifact_sha256: str
    artifact_bytes: int
    status: Status
    reason: str
    """Why it was skipped or failed; empty if ok."""
    proof: str
    """`reference` for the checkpoint itself, else the grade of the artifact's certificate."""
    device: str
    precision: Precision | None
    cold: ColdStart | None
    peak_memory_bytes: int | None
    """Of the contender's process, after all its work."""
    accuracy: Accuracy | None
    measurements: list[Measurement]
    warning: str = ""
    """What to know of its figures."""


@dataclass(frozen=True, slots=True)
class Results:
    """One bench run."""

    schema: int
    created: str
    command: str
    run: str
    data_kind: str
    """`shapes` marks a toy."""
    split: str
    threads: int
    """Given to every contender."""
    scope: str
    seconds: float
    """The whole bench took."""
    environment: Environment
    rows: list[Row]
