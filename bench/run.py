"""A bench from start to end: open every contender, judge it, warm it, time all in turns, and return the results.

It writes nothing and prints nothing; `report` does.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyres import environment
from tinyres.bench import schedule
from tinyres.bench.process import OPEN_LIMIT_S, ContenderFailed, WorkerProcess
from tinyres.bench.results import SCHEMA, ColdStart, Measurement, Results, Row
from tinyres.metrics import Accuracy, accuracy_of
from tinyres.runs import now
from tinyres.runtime.runner import Precision
from tinyres.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tinyres.bench.contenders import Contender
    from tinyres.bench.schedule import Effort
    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress

SCOPE = "host array in, host logits out"
IMAGES = 1000
"""Accuracy is over so many at most, fewer where a contender would need longer than ACCURACY_S."""
LEAST_IMAGES = 100
ACCURACY_S = 45.0
ACCURACY_BATCH = 32


@dataclass(slots=True)
class _Lane:
    """A contender's process and what has been measured of it."""

    contender: Contender
    worker: WorkerProcess
    opened: dict[str, Any] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    warm: dict[int, dict[str, Any]] = field(default_factory=dict)
    blocks: dict[int, list[list[int]]] = field(default_factory=dict)
    peak_bytes: int | None = None
    failure: str = ""


def run_bench(
    contenders: Sequence[Contender],
    dataset: Dataset,
    *,
    run: str,
    batches: Sequence[int],
    effort: Effort = schedule.DEFAULT,
    command: str,
    threads: int | None = None,
    images: int | None = None,
    progress: Progress,
) -> Results:
    """Measure every contender that is not absent. A contender that fails costs its own row only.

    Accuracy is over `images`; without a number, over as many of IMAGES as the slowest answers in time.
    """
    started = time.monotonic()
    threads = threads or environment.usable_cores()
    present = [contender for contender in contenders if not contender.absent]
    for contender in present:
        if contender.warning:
            progress.warn(f"{contender.name}: {contender.warning}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinyres-bench-")))
        pictures, labels = _pictures(dataset, folder, images or IMAGES)
        lanes: list[_Lane] = []
        with progress.task("opening contenders", len(present), "contenders") as task:
            for contender in present:  # one after the other, so that no cold start pays for another's
                lane = _Lane(contender, stack.enter_context(WorkerProcess()))
                lanes.append(lane)
                with _costs_its_row(lane):
                    lane.opened = lane.worker.ask(
                        "open",
                        path=str(lane.contender.path),
                        backend=lane.contender.backend,
                        threads=threads,
                        images=str(pictures),
                        limit_s=OPEN_LIMIT_S,
                    )
                task.advance(1, lane.contender.name)
        _judge(lanes, labels, folder, limit_s=None if images else ACCURACY_S, progress=progress)
        _measure(lanes, batches, effort, progress)
        for lane in _running(lanes):
            with _costs_its_row(lane):
                lane.peak_bytes = lane.worker.ask("memory")["peak_bytes"]
    rows = {lane.contender.name: _row(lane) for lane in lanes}
    return Results(
        schema=SCHEMA,
        created=now(),
        command=command,
        run=run,
        data_kind=dataset.manifest.kind,
        split=dataset.judged_on,
        threads=threads,
        scope=SCOPE,
        seconds=round(time.monotonic() - started, 1),
        environment=environment.capture(),
        rows=[rows.get(contender.name) or _absent(contender) for contender in contenders],
    )


def _pictures(dataset: Dataset, folder: Path, count: int) -> tuple[Path, NDArray[np.int64]]:
    chosen = dataset.val.spread(count)
    # A slow contender judges only the first of them: in an order of the classes it would see few classes.
    order = np.random.default_rng(0).permutation(len(chosen))
    path = folder / "images.npy"
    np.save(path, chosen.images[order])
    return path, np.asarray(chosen.labels)[order]


def _running(lanes: list[_Lane]) -> list[_Lane]:
    return [lane for lane in lanes if not lane.failure]


@contextlib.contextmanager
def _costs_its_row(lane: _Lane) -> Iterator[None]:
    try:
        yield
    except ContenderFailed as exc:
        lane.failure = str(exc)


def _judge(
    lanes: list[_Lane], labels: NDArray[np.int64], folder: Path, *, limit_s: float | None, progress: Progress
) -> None:
    """Accuracy of every contender over the same pictures: as many as the slowest can answer in time."""
    slowest = max((lane.opened["first_s"] for lane in _running(lanes)), default=0.0)
    count = len(labels)
    if limit_s is not None:  # the first answer is slower than the rest, so this is on the safe side
        count = min(count, max(LEAST_IMAGES, int(limit_s / max(slowest, 1e-6))))
    with progress.task("accuracy", len(_running(lanes)), "contenders") as task:
        for number, lane in enumerate(_running(lanes)):
            with _costs_its_row(lane):
                out = folder / f"answers-{number}.npy"
                lane.worker.ask(
                    "answer",
                    count=count,
                    batch=ACCURACY_BATCH,
                    out=str(out),
                    limit_s=10 * max(limit_s or 0.0, ACCURACY_S, count * slowest),
                )
                lane.accuracy = accuracy_of(np.load(out), labels[:count])
            task.advance(1, lane.contender.name)


def _measure(lanes: list[_Lane], batches: Sequence[int], effort: Effort, progress: Progress) -> None:
    for batch in batches:
        for lane in _running(lanes):
            with _costs_its_row(lane):
                lane.warm[batch] = lane.worker.ask("warm", batch=batch)
                lane.blocks[batch] = []
    planned = sum(
        schedule.total_seconds(lane.warm[batch]["median_ns"] / 1e9, effort)
        for lane in _running(lanes)
        for batch in batches
    )
    progress.log(f"timing {len(_running(lanes))} contenders in turns, about {duration(planned)}")
    with progress.task("timing", len(_running(lanes)) * len(batches) * effort.rounds, "blocks") as task:
        for batch in batches:
            for lane in schedule.interleaved(_running(lanes), effort.rounds):
                if lane.failure:
                    continue
                block = schedule.plan_block(lane.warm[batch]["median_ns"] / 1e9, effort)
                with _costs_its_row(lane):
                    reply = lane.worker.ask(
                        "block", batch=batch, seconds=block.seconds, least=block.least, most=block.most
                    )
                    lane.blocks[batch].append(reply["samples_ns"])
                task.advance(1, f"batch {batch}: {lane.contender.name}")


def _row(lane: _Lane) -> Row:
    contender, opened = lane.contender, lane.opened
    return Row(
        name=contender.name,
        backend=contender.backend,
        artifact=contender.path.name,
        artifact_sha256=contender.sha256,
        artifact_bytes=contender.path.stat().st_size,
        status="failed" if lane.failure else "ok",
        reason=lane.failure.replace(f"{contender.path.parent}/", ""),
        proof=contender.proof,
        device=opened.get("device", ""),
        precision=Precision(opened["storage"], opened["compute"]) if opened else None,
        cold=ColdStart(opened["import_s"], opened["load_s"], opened["first_s"]) if opened else None,
        peak_memory_bytes=lane.peak_bytes,
        accuracy=lane.accuracy,
        measurements=[Measurement(batch, lane.warm[batch]["runs"], blocks) for batch, blocks in lane.blocks.items()],
        warning=contender.warning,
    )


def _absent(contender: Contender) -> Row:
    return Row(
        name=contender.name,
        backend=contender.backend,
        artifact="",
        artifact_sha256="",
        artifact_bytes=0,
        status="skipped",
        reason=contender.absent,
        proof=contender.proof,
        device="",
        precision=None,
        cold=None,
        peak_memory_bytes=None,
        accuracy=None,
        measurements=[],
    )
