"""What a bench leaves, as versioned JSON: raw samples, accuracy, environment, command. No summary is kept.

`docs/bench-schema.json` is made from these classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tinyres import records
from tinyres.environment import Environment
from tinyres.errors import InputError, UsageError
from tinyres.export.options import MAX_BATCH
from tinyres.metrics import Accuracy, paired_interval
from tinyres.runtime.runner import Precision
from tinyres.units import counted, duration

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 2

Status = Literal["ok", "skipped", "failed"]
MOST_CLIENTS = 4096
LONGEST_S = 1e9
"""A generation; a time beyond is none that was measured."""


def _require(fits: bool, what: str) -> None:
    """Errors: UsageError, which a reader of files turns into its own, unless a figure can have been measured."""
    if not fits:
        raise UsageError(f"{what} can be no measurement")


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The way to the first answer in a fresh process, in seconds."""

    import_s: float
    """Of the backend's library and tinyres's own code."""
    load_s: float
    """From the file to a runner, with what is compiled or built on the way."""
    first_s: float
    """The first answer, one picture."""

    def __post_init__(self) -> None:
        parts = (self.import_s, self.load_s, self.first_s)
        _require(all(0 <= part < LONGEST_S for part in parts), f"a cold start of {parts} s")

    @property
    def total_s(self) -> float:
        """All three."""
        return self.import_s + self.load_s + self.first_s


@dataclass(frozen=True, slots=True)
class Block:
    """Runs without a pause."""

    round: int
    """Blocks of the same round were measured one after the other, one of each contender, in fresh processes."""
    seconds: float
    """From its beginning to the end of its last run, checks of the answers between them included."""
    samples_ns: list[int] = field(repr=False)
    """Every run in nanoseconds, in the order they were made."""
    disturbed: str = ""
    """What is known to have disturbed it; empty for nothing. Then another block of the same round follows, if there was
    time for one, and only the last of a round counts."""

    def __post_init__(self) -> None:
        _require(0 < self.seconds < LONGEST_S, f"a block of {self.seconds} s")
        _require(_are_times(self.samples_ns), f"a block of {len(self.samples_ns)} runs, of no time or of ages,")


def _are_times(samples_ns: list[int]) -> bool:
    return bool(samples_ns) and min(samples_ns) > 0 and max(samples_ns) < LONGEST_S * 1e9


class Blocks:
    """What a list of blocks says."""

    __slots__ = ()
    blocks: list[Block]

    @property
    def kept(self) -> dict[int, Block]:
        """The block that counts, by round."""
        return {block.round: block for block in self.blocks}

    @property
    def samples_s(self) -> list[float]:
        """All runs that count, in seconds."""
        return [sample / 1e9 for block in self.kept.values() for sample in block.samples_ns]

    @property
    def repeated(self) -> int:
        """Blocks thrown out for a disturbance."""
        return len(self.blocks) - len(self.kept)

    @property
    def disturbed(self) -> int:
        """Blocks that count although they were disturbed."""
        return sum(bool(block.disturbed) for block in self.kept.values())


@dataclass(frozen=True)
class Measurement(Blocks):
    """The latency of one batch size: host array in, host logits out."""

    batch: int
    warmup_runs: int
    steady: bool
    """The warm-up ended because two windows agreed, not because its time was over."""
    blocks: list[Block]
    device_ns: dict[str, list[int]] = field(default_factory=dict, repr=False)
    """Of a GPU alone, by part: copies, the network enqueued and as a CUDA graph."""

    def __post_init__(self) -> None:
        _require(1 <= self.batch <= MAX_BATCH, f"a batch of {self.batch}")
        for part, samples in self.device_ns.items():
            _require(_are_times(samples), f"{part!r} on the device, of no time or of ages,")


@dataclass(frozen=True)
class Load(Blocks):
    """Several clients in threads of one process, each asking for one picture as soon as it has its last answer."""

    clients: int
    blocks: list[Block]

    def __post_init__(self) -> None:
        _require(1 <= self.clients <= MOST_CLIENTS, f"a load of {self.clients} clients")

    @property
    def per_second(self) -> float:
        """Answers, of all clients together."""
        seconds = sum(block.seconds for block in self.kept.values())
        return len(self.samples_s) / seconds


@dataclass(frozen=True, slots=True)
class Parity:
    """How the answers compare with the baseline's, here and now, over the images of the accuracy."""

    images: int
    same: int
    """Images with the baseline's class."""
    error: float
    """RMS of the difference to the baseline's logits, as a share of the part that depends on the image."""
    limit: float

    @property
    def holds(self) -> bool:
        """Whether it answers like the baseline; NaN does not."""
        return self.error <= self.limit


@dataclass(frozen=True, slots=True)
class ProofLevel:
    """A level of the artifact's certificate."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Row:
    """One contender."""

    name: str
    backend: str
    way: str
    """In which the backend runs the file; empty where it has one."""
    artifact: str
    """File name."""
    artifact_sha256: str
    artifact_bytes: int
    status: Status
    reason: str
    """Why it was skipped or failed; empty if ok."""
    proof: str
    """`reference` for the checkpoint itself, else the grade of the artifact's certificate."""
    levels: list[ProofLevel]
    """Of the certificate."""
    device: str
    evidence: str
    """What the backend's library says of what it runs."""
    precision: Precision | None
    cold: list[ColdStart]
    """Each in a process of its own; only the first where something was compiled, which is kept for the next."""
    peak_memory_bytes: int | None
    """Of the contender's process, after all its work."""
    device_memory_bytes: int | None
    """Taken on the GPU to open it and warm it up."""
    accuracy: Accuracy | None
    gained: int
    """Images that it answers rightly and the baseline does not."""
    lost: int
    """Images that the baseline answers rightly and it does not."""
    parity: Parity | None
    measurements: list[Measurement]
    loads: list[Load]
    warning: str = ""
    """What to know of its figures."""

    def __post_init__(self) -> None:
        bytes_ = (self.artifact_bytes, self.peak_memory_bytes or 0, self.device_memory_bytes or 0)
        _require(min(bytes_) >= 0 and max(bytes_) < 2**63, f"{self.name!r} of {max(bytes_, key=abs)} bytes")
        found, changed = self.accuracy, self.gained + self.lost
        if found is not None:
            counts = 0 <= found.correct <= found.correct_top5 <= found.images < 2**63 and found.images > 0
            _require(counts and 0 <= found.low <= found.high <= 1, f"an accuracy of {found.correct}/{found.images}")
            _require(min(self.gained, self.lost) >= 0 and changed <= found.images, f"{changed} changed answers")

    def __repr__(self) -> str:
        batches = ", ".join(str(found.batch) for found in self.measurements if found.blocks)
        said = f": {self.reason}" if self.reason else f", batch {batches}" if batches else ""
        return f"Row({self.name!r}, {self.status}{said})"

    def at(self, batch: int) -> Measurement | None:
        """What was measured with that batch size."""
        return next((found for found in self.measurements if found.batch == batch and found.blocks), None)

    @property
    def difference(self) -> tuple[float, float, float] | None:
        """In accuracy to the baseline, paired, and its 95 % interval, as shares."""
        return paired_interval(self.gained, self.lost, self.accuracy.images) if self.accuracy else None


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
    affinity: list[int]
    """The cores that every contender was kept on; empty where the system has no such thing."""
    tf32: Literal["off"]
    """On GPUs, for every contender."""
    scope: str
    batches: list[int]
    """Asked for; others were measured for the throughput curve alone."""
    seconds: float
    """The whole bench took."""
    interrupted: bool
    """By the user: not all that was asked for is there."""
    baseline: str
    """The row that the others are compared with; empty if none was measured."""
    environment: Environment
    rows: list[Row]

    def __repr__(self) -> str:
        batches = ", ".join(map(str, self.batches))
        measured = f"{len(self.measured)} of {counted(len(self.rows), 'contender')} measured"
        cut = ", interrupted" if self.interrupted else ""
        return f"Results({self.run!r}: {measured}, batch {batches}, in {duration(self.seconds)}{cut})"

    def _repr_markdown_(self) -> str:
        from tinyres.bench.reports.markdown import markdown  # a report reads results, and not the other way round

        return markdown(self)

    def row(self, name: str) -> Row | None:
        """The row of that name."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def measured(self) -> list[Row]:
        """The rows with figures."""
        return [row for row in self.rows if row.status == "ok" and any(found.blocks for found in row.measurements)]


def load(path: Path) -> Results:
    """Read a results.json. Errors: InputError if it is absent, damaged, or of another version."""
    found = records.load_any(path)
    schema = found.get("schema") if isinstance(found, dict) else SCHEMA  # what else is wrong is said below
    if schema != SCHEMA:
        raise InputError(f"{path} has version {schema!r} of the schema; valid: {SCHEMA}", hint="measure again")
    return records.load(Results, path)
