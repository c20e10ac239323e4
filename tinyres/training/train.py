"""The training run, readable from top to bottom: step, evaluation, checkpoint, and a clean end.

Batches and dropout are functions of (seed, step), so a resumed run needs no generator's state. It parses no command
line and knows no recipe by name.
"""

from __future__ import annotations

import time
import traceback
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tinyres.checkpoint import load_state, save_state, save_weights
from tinyres.data.batches import TrainingBatches, seed_for
from tinyres.errors import CheckpointError, TinyresError, TrainingError, UsageError
from tinyres.evaluate import compute_logits, evaluation_of
from tinyres.files import sweep
from tinyres.header import Origin
from tinyres.model import ResNet, build_model
from tinyres.runs import Epoch, merit
from tinyres.schedules import ema_decay, learning_rate, picture_size, picture_sizes
from tinyres.training.compute import (
    Compute,
    autocast,
    batch_that_fits,
    choose,
    compile_model,
    differences,
    is_out_of_memory,
)
from tinyres.training.distributed import VOTE_EVERY_ON_GPU, World
from tinyres.training.optim import make_optimizer, restore_optimizer, set_learning_rate
from tinyres.training.pace import Pace, catch_interrupt
from tinyres.training.summary import Summary, summarize
from tinyres.training.sums import Sums
from tinyres.training.watch import Watch

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from tinyres.data.dataset import Dataset
    from tinyres.evaluate import Evaluation
    from tinyres.progress import Progress
    from tinyres.recipes import Recipe
    from tinyres.runs import Run, RunConfig, State

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
    """None unless it ran to its end."""


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
        trainer = Trainer(run, config, dataset, options=options, start=start, world=world, progress=progress)
        if options.resume:
            trainer.restore()
        trainer.set_state("running")
        try:
            trainer.prepare()
            stopped = trainer.fit(interrupted)
        except TinyresError as exc:
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
        if not stopped and world.is_first:
            summary = summarize(run, config, dataset, trainer.history, trainer.pace, device=world.device)
        return TrainResult(stopped=stopped, history=trainer.history, best=best, summary=summary)


class Trainer:
    """One run's model, optimizer and position. `fit` moves it on; `save` and `restore` keep it."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        dataset: Dataset,
        *,
        options: Options = Options(),
        start: Mapping[str, torch.Tensor] | None = None,
        world: World | None = None,
        progress: Progress,
    ) -> None:
        if config.recipe is None:
            raise UsageError(f"the run {run.name} was imported: there is no training to go on with")
        self.run, self.config, self.dataset, self.options = run, config, dataset, options
        self.recipe: Recipe = config.recipe
        self.world = world or World.alone()
        self.device = self.world.device
        self.progress = progress
        self.pace = Pace(options.max_seconds)
        self.watch = Watch(run, self.recipe, self.pace, progress, tensorboard=options.tensorboard)
        self.batches = TrainingBatches(
            dataset.train,
            config.spec,
            self.recipe,
            seed=config.seed,
            device=self.device,
            rank=self.world.rank,
            processes=self.world.size,
        )
        self.model = self._initial_model(start)
        self.averaged = AveragedModel(self.model, use_buffers=True) if self.recipe.ema_epochs else None
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.forward: nn.Module = self.model
        self.compute: Compute | None = None
        self.step = 0
        self.sums = Sums.zero(self.device)
        self.history: list[Epoch] = []
        self.on_phase: Callable[[str], None] = lambda _: None
        """Told the name of each part of a step as it begins; the profile listens."""

    def _initial_model(self, start: Mapping[str, torch.Tensor] | None) -> ResNet:
        torch.manual_seed(self.config.seed)
        recipe = self.recipe
        model = build_model(self.config.spec, init=recipe.init, zero_init_residual=recipe.zero_init_residual)
        if start is not None:
            model.load_state_dict({**model.state_dict(), **start}, strict=True)
        model = model.to(self.device).to(memory_format=torch.channels_last)
        if recipe.sync_batchnorm and self.world.size > 1:
            if self.device.type != "cuda":
                raise UsageError("sync_batchnorm works on GPUs only", hint="--set sync_batchnorm=false")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return model

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.step // self.batches.per_epoch

    @property
    def kept(self) -> ResNet:
        """The model that is judged and kept: the moving average where the recipe has one."""
        return cast("ResNet", self.averaged.module) if self.averaged is not None else self.model

    @property
    def precision(self) -> str:
        """What steps and their judgement are computed in."""
        return self.compute.precision if self.compute else "fp32"

    def prepare(self) -> None:
        """Choose how to compute, compile, and join the other processes: what a run pays once, before its first step."""
        before = self.compute
        deterministic = self.config.deterministic
        now = choose(
            self.recipe, self.model, self.world, deterministic=deterministic, before=before, progress=self.progress
        )
        if before is not None and (changes := differences(before, now)):
            self._tell_of(changes)
        self.compute = now
        if self.world.size > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.forward = DistributedDataParallel(self.model, device_ids=devices, gradient_as_bucket_view=True)
        if now.compiled:
            try:
                shapes = self.batches.shapes(picture_sizes(self.recipe))
                self.forward = compile_model(self.forward, shapes, self.world, now.precision, self.progress)
            except TrainingError as exc:
                if self.recipe.compile == "on":
                    raise
                self.progress.warn(f"{exc}; going on without")
                self.compute = replace(now, compiled=False)

    def _tell_of(self, changes: list[str]) -> None:
        text = f"the run {self.run.name} goes on in another way than it was trained: {'; '.join(changes)}"
        if self.options.strict_resume:
            raise CheckpointError(text, hint="resume it as it was, or without --strict-resume")
        self.progress.warn(f"{text}: the result will differ in the last bits")

    def fit(self, interrupted: threading.Event) -> str:
        """Train on; return why it stopped early, or an empty string."""
        self.history = [epoch for epoch in self.history if epoch.complete]
        total = self.recipe.epochs * self.batches.per_epoch
        noted = saved = time.monotonic()
        with self.progress.task("training", total, "steps", done=self.step) as task:
            while self.step < total:
                if self.world.size == 1 or self.device.type == "cpu" or self.step % VOTE_EVERY_ON_GPU == 0:
                    stop, over, save = self.world.any(
                        interrupted.is_set(), self.pace.is_over(), time.monotonic() - saved > SAVE_EVERY_S
                    )
                    if stop or over:
                        self._stop_inside_epoch()
                        return "interrupted" if stop else "time"
                    if save:
                        self.save()
                        saved = time.monotonic()
                started = time.perf_counter()
                images = self.train_step()
                note = ""
                if time.monotonic() - noted > NOTE_EVERY_S:
                    note, noted = self._note(), time.monotonic()
                self._took(images, time.perf_counter() - started)
                task.advance(1, note)
                if self.step % self.batches.per_epoch == 0:
                    self._end_epoch(complete=True)
                    saved = time.monotonic()
                self.watch.estimate(
                    epoch=self.epoch, train_images=len(self.dataset.train), judged_images=len(self.dataset.val)
                )
        return ""

    def train_step(self) -> int:
        """One step of the optimizer; returns the pictures in its batch, over all processes."""
        recipe, step = self.recipe, self.step
        self.on_phase("data")
        batch = self.batches.batch(step)
        torch.manual_seed(seed_for(self.config.seed, "dropout", step, self.world.rank))
        set_learning_rate(self.optimizer, learning_rate(recipe, step, self.batches.per_epoch))
        self.on_phase("forward")
        self.forward.train()
        with autocast(self.device, self.precision):
            logits = self.forward(batch.inputs)
        loss = functional.cross_entropy(
            logits.float(), batch.targets, label_smoothing=recipe.label_smoothing, reduction="sum"
        )
        self.on_phase("backward")
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over processes, whose shares may differ by one picture: sums make it exact.
        (loss * (self.world.size / batch.total)).backward()  # type: ignore[no-untyped-call]
        self.on_phase("update")
        self.optimizer.step()
        if self.averaged is not None:
            decay = ema_decay(recipe, step, self.batches.per_epoch)
            self.averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            self.averaged.update_parameters(self.model)
        self.on_phase("sums")
        self.sums.add(loss.detach(), logits.detach(), batch.labels, step)
        self.step += 1
        return batch.total

    def _took(self, images: int, seconds: float) -> None:
        self.sums.seconds += seconds
        self.pace.add(images, seconds)

    def _stop_inside_epoch(self) -> None:
        """Save; and judge what there is, but only if no whole epoch has left weights to use.

        Weights from inside an epoch must not stand as the best of a run that goes on: its history is of whole epochs.
        """
        if self.sums.images and not self.history:
            self._end_epoch(complete=False)
        else:
            self.save()

    def _end_epoch(self, *, complete: bool) -> None:
        """Judge, note in the history, keep the best, save."""
        started = time.perf_counter()
        sums = self.sums.over(self.world)
        self._check_finite(sums)
        self._took(0, time.perf_counter() - started)  # the wait for the device is the epoch's
        seconds = self.sums.seconds
        count = self.world.first(self.pace.judgeable(in_full=complete, split_images=len(self.dataset.val)))
        judged = self._judge(count)
        finished = Epoch(
            epoch=self.epoch if complete else self.epoch + 1,
            step=self.step,
            complete=complete,
            train_loss=sums.mean_loss(),
            train_acc=sums.accuracy(),
            val_loss=judged.loss,
            val_acc=judged.accuracy.top1,
            val_images=judged.accuracy.images,
            lr=learning_rate(self.recipe, self.step - 1, self.batches.per_epoch),
            seconds=seconds,
            images_per_second=sums.images / seconds,
        )
        self.history.append(finished)
        last = complete and self.epoch == self.recipe.epochs
        if self.world.is_first:
            for path, wanted in (
                (self.run.best, max(self.history, key=merit) is finished),
                (self.run.final, last),
            ):
                if wanted:
                    save_weights(path, self.kept, self.config.spec, self._origin(finished))
        if complete:
            self.sums = Sums.zero(self.device)
        self.save()
        if self.world.is_first:
            self.run.save_history(self.history)
            self.watch.epoch(self.history, judged_on=self.dataset.judged_on, judged_of=len(self.dataset.val))

    def _judge(self, count: int) -> Evaluation:
        split = self.dataset.val.spread(count)
        self.world.share_buffers(self.kept)
        images = split.images[self.world.share_of(len(split))]
        with autocast(self.device, self.precision):
            logits = compute_logits(self.kept, images, self.config.spec.preprocess)
        try:
            return evaluation_of(self.world.join_rows(logits), split)
        except ValueError as exc:
            raise self._diverged("an answer", self.step - 1) from exc

    def _origin(self, epoch: Epoch) -> Origin:
        return Origin(
            run=self.run.name,
            recipe=self.recipe.name,
            data_kind=self.config.data_kind,
            data_fingerprint=self.config.data_fingerprint,
            epoch=self.epoch,
            step=epoch.step,
            selected_on=self.dataset.judged_on,
        )

    def _check_finite(self, sums: Sums) -> None:
        """Refuse to go on from, or to save, what is no longer numbers: the loss so far, and the weights themselves."""
        bad = sums.first_bad_step()
        if bad is not None:
            raise self._diverged("the loss", bad)
        weights = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        if not torch.stack([value.isfinite().all() for value in weights]).all():
            raise self._diverged("a weight", self.step - 1)

    def _diverged(self, what: str, step: int) -> TrainingError:
        rate = learning_rate(self.recipe, step, self.batches.per_epoch)
        return TrainingError(
            f"{what} became NaN or infinite at step {step + 1} (learning rate {rate:.4g})",
            hint=f"try --set lr={self.recipe.lr / 3:.2g}; the last good checkpoint is kept",
        )

    def out_of_memory(self) -> TrainingError:
        """The error for a step that memory ran out in. It tries smaller batches, to name one that fits."""
        batch = self.recipe.batch_size
        fits: int | None = batch // 2
        if self.world.size == 1:
            self.optimizer.zero_grad(set_to_none=True)
            size = picture_size(self.recipe, self.recipe.epochs - 1)
            fits = batch_that_fits(self.model, self.device, self.precision, too_many=batch, size=size)
        hint = "a smaller network or smaller pictures: --set widths=... or --set image_size=..."
        if fits:
            hint = f"--set batch_size={fits} --set lr={self.recipe.lr * fits / batch:.3g}"
        return TrainingError(f"a batch of {batch} does not fit into the device's memory", hint=hint)

    def _note(self) -> str:
        if self.world.size == 1 and (bad := self.sums.first_bad_step()) is not None:
            raise self._diverged("the loss", bad)
        return self.watch.note(self.sums, self.step, self.batches.per_epoch)

    def set_state(self, state: State, message: str = "") -> None:
        """Record in the run's folder where it stands."""
        if self.world.is_first:
            self.run.set_state(state, epochs=self.epoch, message=message)

    def save(self) -> None:
        """Write everything needed to go on from this step. Errors: StorageError, TrainingError if it would keep NaN."""
        sums = self.sums.over(self.world)
        self._check_finite(sums)
        if not self.world.is_first:
            return
        save_state(
            self.run.last,
            {
                "step": self.step,
                "fingerprint": self.config.data_fingerprint,
                "compute": asdict(self.compute) if self.compute else None,
                "model": self.model.state_dict(),
                "averaged": self.averaged.module.state_dict() if self.averaged is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "sums": sums.state(),
                "history": [asdict(epoch) for epoch in self.history],
            },
        )

    def restore(self) -> None:
        """Go on from `save`. Errors: CheckpointError if there is nothing to go on from or the data has changed."""
        state = self.world.first(load_state(self.run.last) if self.world.is_first else {})
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as exc:
            raise CheckpointError(f"{self.run.last} is no training state of this run: {exc}") from exc

    def _restore(self, state: dict[str, Any]) -> None:
        if state["fingerprint"] != self.dataset.manifest.fingerprint:
            raise CheckpointError(f"the data of run {self.run.name} has changed since it was trained")
        self.compute = Compute(**state["compute"])
        self.model.load_state_dict(state["model"], strict=True)
        restore_optimizer(self.optimizer, state["optimizer"])
        self.step = state["step"]
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["averaged"], strict=True)
            self.averaged.n_averaged.fill_(self.step)
        if self.world.is_first:
            self.sums = Sums.restored(state["sums"], self.device)
        self.history = [Epoch(**line) for line in state["history"]]
