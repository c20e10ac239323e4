"""The training run, readable from top to bottom: steps, the end of an epoch, and a clean end of the whole.

It parses no command line and knows no recipe by name.
"""

from __future__ import annotations

import time
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres.errors import StorageError, TinyresError
from tinyres.files import sweep
from tinyres.runs import Epoch, merit
from tinyres.schedules import learning_rate
from tinyres.training.compute import is_out_of_memory
from tinyres.training.distributed import VOTE_EVERY_ON_GPU, World
from tinyres.training.pace import Pace, catch_interrupt
from tinyres.training.summary import Summary, summarize
from tinyres.training.sums import Sums
from tinyres.training.trainer import Trainer
from tinyres.training.watch import Watch

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    import torch

    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress
    from tinyres.runs import Run, RunConfig

SAVE_EVERY_S = 600.0
"""Inside a long epoch; every epoch's end is saved too."""
NOTE_EVERY_S = 0.5
"""Reading the loss waits for the device."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of one start of a training, beside what its run says."""

    max_seconds: float | None = None
    resume: bool = False
    strict_resume: bool = False
    """Refuse to go on where the result would not be equal bit for bit."""
    tensorboard: bool = False


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended."""

    stopped: str
    """Empty if it ran to its end, else why not: `interrupted` or `time`."""
    history: list[Epoch]
    best: Epoch | None
    """None if it stopped before its first step."""
    summary: Summary | None
    """None unless it ran to its end, with time left."""


def train(
    run: Run,
    config: RunConfig,
    dataset: Dataset,
    *,
    options: Options = Options(),
    start: Mapping[str, torch.Tensor] | None = None,
    world: World | None = None,
    progress: Progress,
) -> TrainResult:
    """Train to the recipe's end, to `max_seconds` or to Ctrl-C; the folder is usable after any of them.

    `start` are weights to begin with instead of random ones. In several processes all call this, and the first writes.
    Errors: TrainingError if the loss diverges or memory runs out (the last good checkpoint stays); StorageError;
    CheckpointError for a resume that `strict_resume` forbids.
    """
    world = world or World.alone()
    with run.lock() if world.is_first else nullcontext(), catch_interrupt() as interrupted:
        if world.is_first:
            sweep(run.path)
        trainer = Trainer(run, config, dataset, start=start, world=world, progress=progress)
        if options.resume:
            trainer.restore()
        loop = Loop(trainer, options)
        trainer.set_state("running")
        try:
            trainer.prepare(strict=options.strict_resume)
            stopped = loop.run(interrupted)
        except TinyresError as exc:
            with suppress(StorageError):  # what failed may be the disk
                trainer.set_state("failed", str(exc))
            raise
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            traceback.clear_frames(exc.__traceback__)  # they hold the failed step's memory
            trainer.set_state("failed", "out of memory")
            raise trainer.out_of_memory() from exc
        trainer.set_state("stopped" if stopped else "finished", stopped)
        best = max(trainer.history, key=merit, default=None)
        summary = None
        if not stopped and world.is_first and not loop.pace.is_over():
            summary = summarize(run, config, dataset, trainer.history, device=world.device)
        return TrainResult(stopped=stopped, history=trainer.history, best=best, summary=summary)


class Loop:
    """Steps to the end of a run, with what happens between them."""

    def __init__(self, trainer: Trainer, options: Options = Options()) -> None:
        self._trainer = trainer
        self._world, self._dataset = trainer.world, trainer.dataset
        self.pace = Pace(options.max_seconds)
        self._watch = Watch(
            trainer.run,
            trainer.recipe,
            self.pace,
            trainer.progress,
            tensorboard=options.tensorboard and trainer.world.is_first,
        )
        self._saved = time.monotonic()

    def run(self, interrupted: threading.Event) -> str:
        """Train on; return why it stopped early, or an empty string."""
        trainer = self._trainer
        trainer.history = [epoch for epoch in trainer.history if epoch.complete]
        total = trainer.recipe.epochs * trainer.batches.per_epoch
        noted = self._saved = time.monotonic()
        with trainer.progress.task("training", total, "steps", done=trainer.step) as task:
            while trainer.step < total:
                if stopped := self._between_steps(interrupted):
                    return stopped
                started = time.perf_counter()
                images = trainer.train_step()
                note, left_s = "", None
                if self.pace.steps and time.monotonic() - noted > NOTE_EVERY_S:
                    note, noted = self._note(), time.monotonic()
                    left_s = self._seconds_left()
                    self._watch.estimate(left_s)
                self._took(images, time.perf_counter() - started)
                task.advance(1, note, left_s)
                if trainer.step % trainer.batches.per_epoch == 0:
                    self._end_epoch(complete=True)
        return ""

    def _between_steps(self, interrupted: threading.Event) -> str:
        """Stop or save if it is time to, in all processes at the same step; return why it stopped, if it did."""
        trainer = self._trainer
        if self._world.size > 1 and trainer.device.type == "cuda" and trainer.step % VOTE_EVERY_ON_GPU:
            return ""
        stop, over, save = self._world.any(
            interrupted.is_set(), self.pace.is_over(), time.monotonic() - self._saved > SAVE_EVERY_S
        )
        if stop or over:
            # Weights from inside an epoch must not stand as the best of a run that goes on: its history is of whole
            # epochs. They are judged only if there are no others.
            trainer.save()  # at once: who sent the signal may not wait for a judgement
            if trainer.step and not trainer.history:
                trainer.progress.log("stopping: judging what there is; Ctrl-C again ends at once")
                self._end_epoch(complete=False)
            return "interrupted" if stop else "time"
        if save:
            trainer.save()
            self._saved = time.monotonic()
        return ""

    def _end_epoch(self, *, complete: bool) -> None:
        """Judge, note in the history, keep the best, save."""
        trainer = self._trainer
        started = time.perf_counter()
        sums = trainer.sums.over(self._world)
        trainer.check_finite(sums)
        self._took(0, time.perf_counter() - started)  # the wait for the device belongs to the epoch
        seconds = trainer.sums.seconds
        count = self._world.first(self.pace.judgeable(in_full=complete, split_images=len(self._dataset.val)))
        judged = trainer.judge(count)
        finished = Epoch(
            epoch=trainer.epoch if complete else trainer.epoch + 1,
            step=trainer.step,
            complete=complete,
            train_loss=sums.mean_loss(),
            train_acc=sums.accuracy(),
            val_loss=judged.loss,
            val_acc=judged.accuracy.top1,
            val_images=judged.accuracy.images,
            lr=learning_rate(trainer.recipe, trainer.step - 1, trainer.batches.per_epoch),
            seconds=seconds,
            images_per_second=sums.images / seconds,
        )
        trainer.history.append(finished)
        trainer.keep(finished)
        if complete:
            trainer.sums = Sums.zero(trainer.device)
        trainer.save()
        if self._world.is_first:
            trainer.run.save_history(trainer.history)
            self._watch.epoch(trainer.history, judged_on=self._dataset.judged_on, judged_of=len(self._dataset.val))
        self._saved = time.monotonic()

    def _seconds_left(self) -> float:
        trainer, dataset = self._trainer, self._dataset
        return self._watch.seconds_left(
            step=trainer.step,
            per_epoch=trainer.batches.per_epoch,
            train_images=len(dataset.train),
            judged_images=len(dataset.val),
        )

    def _took(self, images: int, seconds: float) -> None:
        self._trainer.sums.seconds += seconds
        self.pace.add(images, seconds)

    def _note(self) -> str:
        trainer = self._trainer
        if self._world.size == 1 and (bad := trainer.sums.first_bad_step()) is not None:
            raise trainer.diverged("the loss", bad)
        return self._watch.note(trainer.sums, trainer.step, trainer.batches.per_epoch)
