"""What each contender answers over the same labelled images: its accuracy, and whether it is the baseline's network.

Answers are kept by all that they depend on, so that a second bench of the same files need not ask again.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyres import environment
from tinyres.bench.lane import BATCH, Lane
from tinyres.bench.process import ContenderFailed
from tinyres.bench.results import Parity
from tinyres.errors import StorageError
from tinyres.export.parity import FLOOR_LIMIT, MOST_ROUNDED, rms, share
from tinyres.export.precisions import PRECISIONS
from tinyres.files import cache_root, sha256_of, storage_errors, write_array
from tinyres.metrics import accuracy_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.data.dataset import Dataset
    from tinyres.runtime.runner import Number

IMAGES = 1000
COUNTS = (1000, 500, 200, 100)
"""Tried in turn until judging fits into its time."""
LEAST_LIMIT_S = 60.0
KEPT_BYTES = 512 * 2**20
"""Of answers from earlier benches; the oldest go first."""
COARSEST_FIRST: tuple[Number, ...] = ("int8", "bf16", "fp16", "fp32")


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is asked, as a file that every contender reads."""

    path: Path
    sha256: str
    labels: NDArray[np.int64]


def choose_pictures(dataset: Dataset, folder: Path, count: int) -> Pictures:
    """`count` validation pictures at even distances, in an order in which any first part holds every class."""
    chosen = dataset.val.spread(count)
    order = np.random.default_rng(0).permutation(len(chosen))
    path = folder / "images.npy"
    np.save(path, chosen.images[order])
    return Pictures(path, sha256_of(path), np.asarray(chosen.labels)[order])


class Kept:
    """Answers of earlier benches, in the cache folder."""

    def __init__(self, cache_dir: Path | None) -> None:
        self._folder = cache_root(cache_dir) / "bench"

    def path(self, lane: Lane, pictures: Pictures) -> Path:
        """Where the answers of this very file, backend, installation and machine would lie."""
        here = environment.capture()
        contender = lane.contender
        parts = [contender.sha256, contender.backend, contender.way, lane.opened["device"], pictures.sha256]
        parts += [lane.setting.threads]
        parts += [here.cpu, here.instruction_sets, here.gpu, sorted(here.packages.items())]
        return self._folder / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.npy"

    def put(self, path: Path, logits: NDArray[np.float32]) -> None:
        """Keep answers. Errors: StorageError."""
        write_array(path, logits)
        with storage_errors(path):
            total = 0
            for old in sorted(self._folder.glob("*.npy"), key=lambda file: file.stat().st_mtime, reverse=True):
                total += old.stat().st_size
                if total > KEPT_BYTES:
                    old.unlink(missing_ok=True)


def count_affordable(lanes: Sequence[Lane], seconds: float, most: int) -> int:
    """So many pictures can `lanes` answer in that time, one after the other; never fewer than the least of COUNTS."""
    each = sum(lane.single_s for lane in lanes)
    fitting = [count for count in COUNTS if count * each <= seconds]
    return min(most, max(fitting, default=COUNTS[-1]))


def answer(lane: Lane, count: int, *, kept: Path, store: Kept) -> None:
    """The lane's logits of the first `count` pictures: those of an earlier bench if they still hold, else new ones."""
    lane.largest_error = error_limit(lane)
    shared: dict[str, Any] = {"count": count, "batch": BATCH, "share": lane.largest_error}
    shared["limit_s"] = max(LEAST_LIMIT_S, 10 * count * lane.single_s)
    if kept_count(kept) >= count and lane.worker.ask("recall", kept=str(kept), **shared)["holds"]:
        lane.logits = np.load(kept)[:count]
        return
    out = lane.setting.folder / "answers.npy"
    lane.worker.ask("answer", out=str(out), **shared)
    lane.logits = np.load(out)
    if not np.isfinite(lane.logits).all():
        raise ContenderFailed("it answers with NaN or infinity")
    if not np.ptp(lane.logits, axis=0).any():
        raise ContenderFailed("it answers alike to every picture")
    with contextlib.suppress(StorageError):  # a cache that cannot be written costs time, not a bench
        store.put(kept, lane.logits)


def kept_count(path: Path) -> int:
    """How many answers are kept there; 0 for none, or a file that is damaged."""
    try:
        return len(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, EOFError):
        return 0


def judge(lane: Lane, baseline: Lane, labels: NDArray[np.int64]) -> None:
    """Accuracy, its paired difference to the baseline's, and whether the answers are the baseline's at all."""
    if lane.logits is None or baseline.logits is None:
        return
    lane.accuracy = accuracy_of(lane.logits, labels)
    ours, theirs = lane.logits.argmax(axis=1), baseline.logits.argmax(axis=1)
    lane.gained = int(((ours == labels) & (theirs != labels)).sum())
    lane.lost = int(((theirs == labels) & (ours != labels)).sum())
    signal = rms(baseline.logits - baseline.logits.mean(axis=0))
    error = share(rms(lane.logits - baseline.logits), signal)
    limit = max(error_limit(lane), error_limit(baseline))
    lane.parity = Parity(len(labels), int((ours == theirs).sum()), error, limit)
    if lane is not baseline and not lane.parity.holds:
        lane.leave(
            "failed",
            f"its answers are not {baseline.contender.name}'s: they differ by {error:.1%} of the signal,"
            f" the limit is {lane.parity.limit:.1%}",
        )


def error_limit(lane: Lane) -> float:
    """The largest error of what the lane computes in: what the proof of such an artifact allows."""
    precision = lane.precision
    coarsest = next(number for number in COARSEST_FIRST if number in (precision.storage, precision.compute))
    if coarsest == "int8":
        return lane.contender.error_limit or MOST_ROUNDED
    limits = PRECISIONS[coarsest].limits  # type: ignore[index]
    # Both sides are off by as much as float32 may be, where its floor is at the largest that a proof allows.
    return limits.largest_error(FLOOR_LIMIT)
