"""The phases of a bench, from opening the contenders to the last block: what is asked of whom, when, and how long.

A contender that fails in one of them takes no part in the next; what it cost is its own row.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyres import environment
from tinyres.bench import answers, schedule
from tinyres.bench.conditions import Observer, read_gpu
from tinyres.bench.lane import Lane, Series
from tinyres.bench.reports.tables import CLIENTS
from tinyres.bench.results import Block
from tinyres.units import counted, duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from tinyres.bench.contenders import Contender
    from tinyres.bench.lane import Setting
    from tinyres.bench.schedule import Effort, Plan
    from tinyres.progress import Progress

SLOW_HALF = 3.0
"""Half precision on a CPU that takes so many times as long as float32 is emulated there, and not worth the time."""
ACCURACY_SHARE = 0.2
"""Of the whole time, at most, for accuracy."""
REPEATS = 2
"""Further tries for a disturbed block."""
REPEATED_SHARE = 0.25
"""Of the blocks may be repeated: on a machine that is never left alone, a bench still ends."""
PATIENCE_S, PATIENCE = 30.0, 20
"""A block that takes so many times as long as it should, and this longer, hangs."""
WARM_LIMIT_S = 180.0
"""What is compiled for a batch size is compiled when it is warmed up."""
COLD_STARTS = 3
"""Rounds whose processes are opened one after the other, and their starts taken down; later ones save the time."""
OPENED_AT_ONCE = 2
SLACK = 1.25
"""What opening and warming up is planned with beyond the first time's: later ones meet a restless machine too."""
READING_S, CLIENTS_S = 0.05, 0.2
"""What looking at the machine around a block costs, and starting clients."""
KEPT = 0.4
"""Opening and warming up once more what was compiled takes about so much of the first time."""
WINDOW_S, WINDOW_RUNS = 0.2, 5
DEVICE_RUNS = 100


class Bench:
    """The contenders and the clock. Its methods are the phases, in the order they are written in."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        setting: Setting,
        batches: Sequence[int],
        effort: Effort,
        progress: Progress,
    ) -> None:
        self.lanes = [Lane(contender, setting) for contender in contenders]
        self.baseline: Lane | None = None
        self._batches, self._effort, self._progress = batches, effort, progress
        self._observer = Observer(environment.usable_cores(), watches_gpu=read_gpu() is not None)
        self._labels: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._repeats_left = 0
        self._started = time.monotonic()
        self._deadline = self._started + effort.budget_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        for lane in self.lanes:
            lane.close()

    def kill(self) -> None:
        """End what a contender may be in the midst of, and nobody waits for any more."""
        for lane in self.lanes:
            lane.abandon()

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def has_blocks(self) -> bool:
        """Whether anything was measured."""
        return any(series.blocks for lane in self.lanes for series in lane.by_batch.values())

    def running(self) -> list[Lane]:
        """The contenders that have not failed."""
        return [lane for lane in self.lanes if lane.running]

    def open(self) -> None:
        """Start a process each, one after the other, so that no cold start pays for another's."""
        for lane in self.lanes:
            if lane.contender.warning:
                self._progress.warn(f"{lane.contender.name}: {lane.contender.warning}")
        with self._progress.task("opening", len(self.lanes), "contenders") as task:
            for lane in self.lanes:
                with lane.costs_its_row():
                    before = self._gpu_memory()
                    lane.open()
                    lane.device_bytes = self._gpu_memory(since=before)
                    lane.single_s = lane.worker.ask("probe")["single_ns"] / 1e9
                task.advance(1, lane.contender.name)

    def leave_out_slow_halves(self) -> None:
        """Half precision on a CPU without arithmetic for it is emulated, many times slower than float32."""
        for lane in self.running():
            floats = [
                other.single_s
                for other in self.running()
                if other.contender.backend == lane.contender.backend and other.precision.storage == "fp32"
            ]
            if lane.precision.storage in ("fp16", "bf16") and lane.opened["device"] == "cpu" and floats:
                times = lane.single_s / min(floats)
                if times > SLOW_HALF:
                    lane.leave("skipped", f"{lane.precision} takes {times:.1f} times as long as fp32 on this processor")

    def judge(self, pictures: answers.Pictures, store: answers.Kept, *, all_of_them: bool) -> None:
        """Accuracy of every contender over the same pictures, beside the baseline's; who answers otherwise is out."""
        kept = {id(lane): store.path(lane, pictures) for lane in self.running()}
        count, before = len(pictures.labels), time.monotonic()
        if not all_of_them:
            asking = [lane for lane in self.running() if answers.kept_count(kept[id(lane)]) < count]
            count = answers.count_affordable(asking, ACCURACY_SHARE * self._effort.budget_s, count)
        with self._progress.task("accuracy", len(self.running()), "contenders") as task:
            for lane in self.running():
                with lane.costs_its_row():
                    answers.answer(lane, count, kept=kept[id(lane)], store=store)
                task.advance(1, lane.contender.name)
        if all_of_them:  # as many as were asked for, however long it takes: not at the cost of the rest
            self._deadline += time.monotonic() - before
        self._labels = pictures.labels[:count]
        self.settle_baseline()

    def settle_baseline(self) -> None:
        """Compare everyone with what is the baseline now: what was, may have failed since."""
        if self.baseline is not None and self.baseline.status == "ok":
            return
        judged = [lane for lane in self.lanes if lane.status == "ok" and lane.logits is not None]
        self.baseline = find_baseline(judged)
        if self.baseline is not None:
            for lane in judged:
                answers.judge(lane, self.baseline, self._labels)

    def time_batches(self) -> None:
        """The batch sizes that were asked for, as thoroughly as the time allows, every round in fresh processes.

        Where memory comes to lie differs from process to process, and latency with it, by more than from block to
        block: of one process a bench would measure the luck.
        """
        self._warm_all()
        lanes = self.running()
        latencies = [lane.by_batch[batch].latency_s for lane in lanes for batch in self._batches]
        again_s = SLACK * sum(_again_s(lane) for lane in lanes)
        beside_s = self._side_seconds()
        effort = schedule.fitted(latencies, self._effort, self._deadline - time.monotonic() - beside_s, again_s)
        planned = schedule.planned_seconds(latencies, effort, again_s)
        in_all_s, budget_s = self.elapsed_s + planned + beside_s, self._effort.budget_s
        longer = f", over the {duration(budget_s)}: the least that ranks them" if in_all_s > budget_s else ""
        self._progress.log(
            f"timing {counted(effort.rounds, 'round')} in fresh processes: about {duration(planned + beside_s)},"
            f" {duration(in_all_s)} in all{longer}"
        )
        if effort.limit_s < self._effort.limit_s:
            self._progress.log(f"the slow ones get fewer runs than {effort.runs}, for lack of time (see --thorough)")
        self._repeats_left = int(REPEATED_SHARE * len(latencies) * effort.rounds)
        round_s = 0.0
        with self._progress.task("timing", len(latencies) * effort.rounds, "blocks") as task:
            for number in range(effort.rounds):
                begun = time.monotonic()
                if number >= schedule.LEAST_ROUNDS and begun + round_s > self._deadline - beside_s:
                    self._progress.log(f"{counted(number, 'round')} took the time of {effort.rounds}")
                    break
                if number:
                    self._open_again(alone=number < COLD_STARTS)
                    self._warm_all()
                for batch in self._batches:
                    for lane in schedule.in_turn(self.running(), number):
                        series = lane.by_batch[batch]
                        plan = schedule.plan_block(series.latency_s, effort)
                        with lane.costs_its_row():
                            peak_bytes = self._block(lane, series, number, _timed(batch, plan), repeats=REPEATS)
                            lane.peak_bytes = max(lane.peak_bytes or 0, peak_bytes or 0) or None
                        task.advance(1, f"round {number + 1}, batch {batch}: {lane.contender.name}")
                round_s = time.monotonic() - begun
        for lane in self.running():
            for batch in self._batches:
                with lane.costs_the_rest(f"the device's own times at batch {batch}"):
                    lane.by_batch[batch].device_ns = lane.worker.ask("device", batch=batch, runs=DEVICE_RUNS)[
                        "parts_ns"
                    ]

    def _open_again(self, *, alone: bool) -> None:
        def begin(lane: Lane) -> None:
            with lane.costs_its_row():
                lane.open(alone=alone)

        with ThreadPoolExecutor(1 if alone else OPENED_AT_ONCE) as pool:
            try:
                list(pool.map(begin, self.running()))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                self.kill()  # nobody waits for openings that are under way
                raise

    def _warm_all(self) -> None:
        for batch in self._batches:
            for lane in self.running():
                with lane.costs_its_row():
                    self._warm(lane, batch, WINDOW_S, WINDOW_RUNS if batch * lane.single_s < WINDOW_S else 2)

    def time_clients(self) -> None:
        """Several clients at once, one picture each."""
        for clients in CLIENTS:
            if not self._time_left(f"{clients} and more clients"):
                break
            with self._progress.task(
                f"{clients} clients", len(self.running()) * self._effort.side_rounds, "blocks"
            ) as task:
                for number in range(self._effort.side_rounds):
                    for lane in schedule.in_turn(self.running(), number):
                        asked = {"do": "load", "clients": clients, "seconds": 2 * self._effort.side_s}
                        series = lane.by_clients.setdefault(clients, Series())
                        with lane.costs_the_rest(f"{clients} clients"):
                            self._block(lane, series, number, asked, repeats=0)
                        task.advance(1, lane.contender.name)

    def time_other_batches(self) -> None:
        """The rest of the throughput curve, for each contender up to the batch that takes too long."""
        plan = schedule.plan_side_block(self._effort)
        for batch in schedule.swept_sizes(self._batches):
            lanes = [lane for lane in self.running() if _per_image_s(lane) * batch <= self._effort.side_batch_s]
            if not lanes or not self._time_left(f"batches of {batch} and more"):
                break
            for lane in lanes:
                with lane.costs_the_rest(f"batch {batch}"):
                    self._warm(lane, batch, self._effort.side_s / 2, plan.least)
            with self._progress.task(f"batch {batch}", len(lanes) * self._effort.side_rounds, "blocks") as task:
                for number in range(self._effort.side_rounds):
                    for lane in schedule.in_turn([lane for lane in lanes if lane.running], number):
                        with lane.costs_the_rest(f"batch {batch}"):
                            self._block(lane, lane.by_batch[batch], number, _timed(batch, plan), repeats=0)
                        task.advance(1, lane.contender.name)

    def _warm(self, lane: Lane, batch: int, window_s: float, least: int) -> None:
        before, started = self._gpu_memory(), time.monotonic()
        limit_s = WARM_LIMIT_S + PATIENCE * least * batch * lane.single_s
        warm = lane.worker.ask("warm", batch=batch, window_s=window_s, least=least, limit_s=limit_s)
        more = self._gpu_memory(since=before)
        series = lane.by_batch.setdefault(batch, Series())
        first = not series.warmup_runs and batch in self._batches  # of later processes it is the same again
        if first and lane.device_bytes is not None and more is not None:
            lane.device_bytes += more
        series.latency_s = warm["median_ns"] / 1e9
        series.warmup_runs += warm["runs"]
        series.steady &= warm["steady"]
        lane.warm_s += time.monotonic() - started

    def _block(self, lane: Lane, series: Series, number: int, asked: dict[str, Any], *, repeats: int) -> int | None:
        """One block, and another in its place if it was disturbed and there is time; the process's peak memory."""
        runs = asked.get("least", 1) * asked.get("batch", asked.get("clients"))
        limit_s = PATIENCE_S + PATIENCE * max(asked["seconds"], runs * lane.single_s)
        for left in range(repeats, -1, -1):
            before = self._observer.read(lane.worker.id)
            reply = lane.worker.ask(limit_s=limit_s, **asked)
            after = self._observer.read(lane.worker.id)
            disturbed = self._observer.disturbance(before, after, on_gpu=self._gpu_lane(lane))
            series.blocks.append(Block(number, round(reply["seconds"], 6), reply["samples_ns"], disturbed))
            if not disturbed or not left or self._repeats_left <= 0:
                break
            self._repeats_left -= 1
        peak_bytes: int | None = reply["peak_bytes"]
        return peak_bytes

    def _gpu_lane(self, lane: Lane) -> str:
        """Whose clocks to compare a GPU's with: a contender's on it; of others it idles, and empty is nobody's."""
        return lane.contender.name if lane.opened["device"].startswith("cuda") else ""

    def _side_seconds(self) -> float:
        """About how long the other batches and the clients will take."""
        effort, total = self._effort, 0.0
        for lane in self.running():
            each = _per_image_s(lane)
            for batch in schedule.swept_sizes(self._batches):
                if (took := each * batch) <= effort.side_batch_s:
                    total += 2 * max(effort.side_s / 2, 2 * took)  # two windows to warm up
                    total += effort.side_rounds * (max(effort.side_s, 2 * took) + took + READING_S)
            total += len(CLIENTS) * effort.side_rounds * (2 * effort.side_s + CLIENTS_S)
        return total

    def _time_left(self, what: str) -> bool:
        if time.monotonic() < self._deadline:
            return True
        self._progress.warn(f"not measured for lack of time: {what} (--thorough takes the time)")
        return False

    def _gpu_memory(self, since: int | None = 0) -> int | None:
        """Bytes in use on the GPU, over those of before; None without one."""
        reading = self._observer.watches_gpu and read_gpu()
        return reading.memory_bytes - since if reading and since is not None else None


def find_baseline(lanes: Sequence[Lane]) -> Lane | None:
    """What the others are compared with: the checkpoint, else the first in float32, else the first."""
    reference = [lane for lane in lanes if lane.contender.proof == "reference"]
    floats = [lane for lane in lanes if lane.precision.storage == "fp32"]
    return next(iter([*(lane for lane in reference if lane in floats), *floats, *lanes]), None)


def _timed(batch: int, plan: Plan) -> dict[str, Any]:
    return {"do": "block", "batch": batch, "seconds": plan.seconds, "least": plan.least, "most": plan.most}


def _per_image_s(lane: Lane) -> float:
    """By the largest batch that was measured."""
    largest = max(lane.by_batch)
    return lane.by_batch[largest].latency_s / largest


def _again_s(lane: Lane) -> float:
    """About how long its next process takes to open and to warm up."""
    return (lane.open_s / OPENED_AT_ONCE + lane.warm_s) * (KEPT if lane.contender.compiles else 1)
