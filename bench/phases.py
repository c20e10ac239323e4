"""The phases of a bench, from opening the contenders to the last block: what is asked of whom, when, and how long.

A contender that fails in one of them takes no part in the next; what it cost is its own row.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tinyres import environment
from tinyres.bench import answers, schedule
from tinyres.bench.conditions import Observer, read_gpu
from tinyres.bench.lane import Lane, Series
from tinyres.bench.process import OPEN_LIMIT_S, WorkerProcess
from tinyres.bench.results import Block, ColdStart
from tinyres.units import counted, duration

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Sequence
    from pathlib import Path

    from tinyres.bench.contenders import Contender
    from tinyres.bench.schedule import Effort, Plan
    from tinyres.progress import Progress

CLIENTS = (1, 2, 4, 8)
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
WINDOW_S, WINDOW_RUNS = 0.2, 5
DEVICE_RUNS = 100


class Bench:
    """The contenders and the clock. Its methods are the phases, in the order they are written in."""

    def __init__(self, batches: Sequence[int], effort: Effort, threads: int, progress: Progress) -> None:
        self.lanes: list[Lane] = []
        self.baseline: Lane | None = None
        self.batches, self.effort, self.threads, self.progress = batches, effort, threads, progress
        self.cores = environment.cores_for(threads)
        self._observer = Observer(environment.usable_cores(), watches_gpu=read_gpu() is not None)
        self._repeats_left = 0
        self._started = time.monotonic()
        self._deadline = self._started + effort.budget_s

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def running(self) -> list[Lane]:
        """The contenders that have not failed."""
        return [lane for lane in self.lanes if lane.running]

    def open(
        self,
        contenders: Sequence[Contender],
        images: Path,
        folder: Path,
        worker: Sequence[str],
        stack: contextlib.ExitStack,
    ) -> None:
        """Start a process each, one after the other, so that no cold start pays for another's."""
        limit = f", {duration(self.effort.budget_s)} at most" if self.effort.budget_s < float("inf") else ""
        cores = f" on cores {', '.join(map(str, self.cores))}" if self.cores else ""
        self.progress.log(
            f"measuring {counted(len(contenders), 'contender')}: {counted(self.threads, 'thread')} each{cores},"
            f" TF32 off{limit}"
        )
        for contender in contenders:
            if contender.warning:
                self.progress.warn(f"{contender.name}: {contender.warning}")

        def start(lane: Lane, number: int) -> None:
            # What torch.compile kept from an earlier process would make a cold start warm.
            compiled = folder / f"compiled-{len(self.lanes)}-{number}"
            lane.worker = WorkerProcess(worker, environment={"TORCHINDUCTOR_CACHE_DIR": str(compiled)})
            stack.enter_context(lane.worker)
            reply = lane.worker.ask(
                "open",
                path=str(lane.contender.path),
                backend=lane.contender.backend,
                way=lane.contender.way or None,
                threads=self.threads,
                cores=self.cores,
                images=str(images),
                limit_s=OPEN_LIMIT_S,
            )
            lane.opened = reply
            lane.cold.append(ColdStart(reply["import_s"], reply["load_s"], reply["first_s"]))

        with self.progress.task("opening", len(contenders), "contenders") as task:
            for contender in contenders:
                lane = Lane(contender)
                self.lanes.append(lane)
                with lane.costs_its_row():
                    for number in range(self.effort.cold_starts):
                        if number and lane.cold[-1].total_s > schedule.SLOW_START_S:
                            break
                        if number:
                            lane.worker.close()
                        before = self._gpu_memory()
                        start(lane, number)
                        lane.device_bytes = self._gpu_memory(since=before)
                    lane.single_s = lane.worker.ask("probe")["single_ns"] / 1e9
                task.advance(1, contender.name)

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

    def judge(self, pictures: answers.Pictures, store: answers.Kept, folder: Path, *, all_of_them: bool) -> None:
        """Accuracy of every contender over the same pictures, beside the baseline's; who answers otherwise is out."""
        kept = {id(lane): store.path(lane, pictures, self.threads) for lane in self.running()}
        count, before = len(pictures.labels), time.monotonic()
        if not all_of_them:
            asking = [lane for lane in self.running() if answers.kept_count(kept[id(lane)]) < count]
            count = answers.count_affordable(asking, ACCURACY_SHARE * self.effort.budget_s, count)
        with self.progress.task("accuracy", len(self.running()), "contenders") as task:
            for lane in self.running():
                with lane.costs_its_row():
                    answers.answer(lane, pictures, count, kept=kept[id(lane)], store=store, folder=folder)
                task.advance(1, lane.contender.name)
        if all_of_them:  # as many as were asked for, however long it takes: not at the cost of the rest
            self._deadline += time.monotonic() - before
        self.baseline = find_baseline(self.running())
        if self.baseline is not None:
            for lane in self.running():
                answers.judge(lane, self.baseline, pictures.labels[:count])

    def time_batches(self) -> None:
        """The batch sizes that were asked for, as thoroughly as the time allows."""
        latencies = []
        for batch in self.batches:
            self._warm(self.running(), batch, WINDOW_S, WINDOW_RUNS)
            latencies += [lane.by_batch[batch].warm["median_ns"] / 1e9 for lane in self.running()]
        beside = self._side_seconds()
        effort = schedule.fitted(latencies, self.effort, self._deadline - time.monotonic() - beside)
        planned = sum(schedule.total_seconds(latency, effort) for latency in latencies)
        if effort != self.effort:
            self.progress.log(
                f"the slow ones get fewer runs than {effort.runs}, for lack of time (--thorough gives more)"
            )
        whole = duration(self.elapsed_s + planned + beside)
        self.progress.log(f"timing in turns, about {duration(planned + beside)}, {whole} in all")
        self._repeats_left = int(REPEATED_SHARE * len(latencies) * effort.rounds)
        with self.progress.task("timing", len(latencies) * effort.rounds, "blocks") as task:
            for batch in self.batches:
                for number in range(effort.rounds):
                    for lane in schedule.in_turn(self.running(), number):
                        series = lane.by_batch[batch]
                        plan = schedule.plan_block(series.warm["median_ns"] / 1e9, effort)
                        with lane.costs_its_row():
                            self._block(lane, series, number, _timed(batch, plan), repeats=REPEATS)
                        task.advance(1, f"batch {batch}: {lane.contender.name}")
                for lane in self.running():
                    with lane.costs_its_row():
                        reply = lane.worker.ask("device", batch=batch, runs=DEVICE_RUNS)
                        lane.by_batch[batch].device_ns = reply["parts_ns"]

    def time_other_batches(self) -> None:
        """The rest of the throughput curve, for each contender up to the batch that takes too long."""
        plan = schedule.plan_side_block(self.effort)
        for batch in schedule.swept_sizes(self.batches):
            lanes = [lane for lane in self.running() if _per_image_s(lane) * batch <= self.effort.side_batch_s]
            if not lanes or not self._time_left(f"batches of {batch} and more"):
                break
            self._warm(lanes, batch, self.effort.side_s / 2, plan.least)
            with self.progress.task(f"batch {batch}", len(lanes) * self.effort.side_rounds, "blocks") as task:
                for number in range(self.effort.side_rounds):
                    for lane in schedule.in_turn([lane for lane in lanes if lane.running], number):
                        with lane.costs_its_row():
                            self._block(lane, lane.by_batch[batch], number, _timed(batch, plan), repeats=0)
                        task.advance(1, lane.contender.name)

    def time_clients(self) -> None:
        """Several clients at once, one picture each."""
        for clients in CLIENTS:
            if not self._time_left(f"{clients} and more clients"):
                break
            with self.progress.task(
                f"{clients} clients", len(self.running()) * self.effort.side_rounds, "blocks"
            ) as task:
                for number in range(self.effort.side_rounds):
                    for lane in schedule.in_turn(self.running(), number):
                        asked = {"do": "load", "clients": clients, "seconds": 2 * self.effort.side_s}
                        series = lane.by_clients.setdefault(clients, Series())
                        with lane.costs_its_row():
                            self._block(lane, series, number, asked, repeats=0)
                        task.advance(1, lane.contender.name)

    def _warm(self, lanes: Sequence[Lane], batch: int, window_s: float, least: int) -> None:
        for lane in lanes:
            with lane.costs_its_row():
                before = self._gpu_memory()
                warm = lane.worker.ask("warm", batch=batch, window_s=window_s, least=least, limit_s=WARM_LIMIT_S)
                lane.by_batch[batch] = Series(warm)
                if lane.device_bytes is not None and (more := self._gpu_memory(since=before)) is not None:
                    lane.device_bytes += more

    def _block(self, lane: Lane, series: Series, number: int, asked: dict[str, Any], *, repeats: int) -> None:
        """One block, and another in its place if it was disturbed and there is time."""
        runs = asked.get("least", 1) * asked.get("batch", asked.get("clients"))
        limit_s = PATIENCE_S + PATIENCE * max(asked["seconds"], runs * lane.single_s)
        for left in range(repeats, -1, -1):
            before = self._observer.read(lane.worker.id)
            reply = lane.worker.ask(limit_s=limit_s, **asked)
            after = self._observer.read(lane.worker.id)
            lane.peak_bytes = reply["peak_bytes"]
            disturbed = self._observer.disturbance(before, after)
            series.blocks.append(Block(number, round(reply["seconds"], 6), reply["samples_ns"], disturbed))
            if not disturbed or not left or self._repeats_left <= 0:
                break
            self._repeats_left -= 1

    def _side_seconds(self) -> float:
        """About how long the other batches and the clients will take."""
        effort, total = self.effort, 0.0
        for lane in self.running():
            each = _per_image_s(lane)
            for batch in schedule.swept_sizes(self.batches):
                if each * batch <= effort.side_batch_s:
                    total += (1 + effort.side_rounds) * max(effort.side_s, 2 * each * batch)
            total += len(CLIENTS) * effort.side_rounds * 2 * effort.side_s
        return total

    def _time_left(self, what: str) -> bool:
        if time.monotonic() < self._deadline:
            return True
        self.progress.warn(f"not measured for lack of time: {what} (--thorough takes the time)")
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
    return float(lane.by_batch[largest].warm["median_ns"]) / 1e9 / largest
