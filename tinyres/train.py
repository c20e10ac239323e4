"""The training run, readable from top to bottom: step, evaluation, checkpoint, and a clean end.

Batches and dropout are functions of (seed, step), so a resumed run needs no generator's state. It parses no command
line and knows no recipe by name.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from tinyres.checkpoint import load_state, save_state, save_weights
from tinyres.data.batches import TrainingBatches, seed_for
from tinyres.errors import CheckpointError, TinyresError, TrainingError, UsageError
from tinyres.evaluate import evaluate
from tinyres.header import Origin
from tinyres.model import build_model, pick_device
from tinyres.pace import Pace, catch_interrupt
from tinyres.plot import draw_curves
from tinyres.runs import Epoch, merit
from tinyres.units import duration

if TYPE_CHECKING:
    import threading

    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress
    from tinyres.recipes import Recipe
    from tinyres.runs import Run, RunConfig

SAVE_EVERY_S = 600.0
"""Inside a long epoch; every epoch's end is saved too."""
DRAW_EVERY_S = 10.0
"""A picture takes a third of a second, and a small network's epoch no more."""
NOTE_EVERY_S = 0.5
"""Reading the loss waits for the device."""
ESTIMATE_AFTER_S = 5.0
LONG_RUN_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended."""

    stopped: str
    """Empty if it ran to its end, else why not: `interrupted` or `time`."""
    history: list[Epoch]
    best: Epoch | None
    """None if it stopped before its first step."""


def train(
    run: Run,
    config: RunConfig,
    dataset: Dataset,
    *,
    max_seconds: float | None = None,
    resume: bool = False,
    progress: Progress,
) -> TrainResult:
    """Train to the recipe's end, to `max_seconds` or to Ctrl-C; the folder is usable after any of them.

    Errors: TrainingError if the loss diverges or memory runs out (the last good checkpoint stays); StorageError.
    """
    if config.recipe is None:
        raise UsageError(f"the run {run.name} was imported: there is no training to go on with")
    with run.lock(), catch_interrupt() as interrupted:
        trainer = Trainer(run, config, config.recipe, dataset, Pace(max_seconds), progress)
        if resume:
            trainer.restore()
        run.set_state("running", epochs=trainer.epoch)
        try:
            stopped = trainer.fit(interrupted)
        except torch.cuda.OutOfMemoryError as exc:
            run.set_state("failed", epochs=trainer.epoch, message="out of memory")
            half = max(1, config.recipe.batch_size // 2)
            raise TrainingError(
                f"a batch of {config.recipe.batch_size} does not fit into the device's memory",
                hint=f"--set batch_size={half} --set lr={config.recipe.lr / 2:g}",
            ) from exc
        except TinyresError as exc:
            run.set_state("failed", epochs=trainer.epoch, message=str(exc))
            raise
        run.set_state("stopped" if stopped else "finished", epochs=trainer.epoch, message=stopped)
        best = max(trainer.history, key=merit, default=None)
        return TrainResult(stopped=stopped, history=trainer.history, best=best)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine down to 0 at the run's end."""
    epoch = step / steps_per_epoch
    if epoch < recipe.warmup_epochs:
        return recipe.lr * (epoch + 1 / steps_per_epoch) / recipe.warmup_epochs
    if recipe.schedule == "cosine-by-epoch":
        epoch = math.floor(epoch)
    share = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * share))


class Trainer:
    """One run's model, optimizer and position. `fit` moves it on; `save` and `restore` keep it."""

    def __init__(
        self, run: Run, config: RunConfig, recipe: Recipe, dataset: Dataset, pace: Pace, progress: Progress
    ) -> None:
        self.run, self.config, self.recipe = run, config, recipe
        self.dataset, self.pace, self.progress = dataset, pace, progress
        self.device = pick_device()
        torch.manual_seed(config.seed)
        model = build_model(config.spec, init=recipe.init)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.batches = TrainingBatches(
            dataset.train, recipe, config.spec.preprocess, seed=config.seed, device=self.device
        )
        self.step = 0
        self.sums = Sums.zero(self.device)
        self.history: list[Epoch] = []
        self._drawn = -DRAW_EVERY_S

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.step // self.batches.per_epoch

    def fit(self, interrupted: threading.Event) -> str:
        """Train on; return why it stopped early, or an empty string."""
        self.history = [epoch for epoch in self.history if epoch.complete]
        total = self.recipe.epochs * self.batches.per_epoch
        noted = saved = time.monotonic()
        estimated = False
        with self.progress.task("training", total, "steps", done=self.step) as task:
            while self.step < total:
                if interrupted.is_set() or self.pace.is_over():
                    self._stop_inside_epoch()
                    return "interrupted" if interrupted.is_set() else "time"
                self._train_step()
                note = ""
                if time.monotonic() - noted > NOTE_EVERY_S:
                    note, noted = self._note(), time.monotonic()
                task.advance(1, note)
                if self.step % self.batches.per_epoch == 0:
                    self._end_epoch(complete=True)
                    saved = time.monotonic()
                elif time.monotonic() - saved > SAVE_EVERY_S:
                    self.save()
                    saved = time.monotonic()
                if not estimated and self.pace.seconds > ESTIMATE_AFTER_S and self.pace.steps > 3:
                    self._tell_how_long(total)
                    estimated = True
        return ""

    def _train_step(self) -> None:
        started = time.perf_counter()
        inputs, labels = self.batches.batch(self.step)
        torch.manual_seed(seed_for(self.config.seed, "dropout", self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step, self.batches.per_epoch)
        self.model.train()
        logits = self.model(inputs)
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.sums.add(loss.detach(), logits.detach(), labels, self.step)
        self.step += 1
        seconds = time.perf_counter() - started
        self.sums.seconds += seconds
        self.pace.add(len(labels), seconds)

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
        self._check_finite()
        count = self.pace.judgeable(in_full=complete, split_images=len(self.dataset.val))
        try:
            judged = evaluate(self.model, self.dataset.val.spread(count), self.config.spec.preprocess)
        except ValueError as exc:
            raise self._diverged("an answer", self.step - 1) from exc
        finished = Epoch(
            epoch=self.epoch if complete else self.epoch + 1,
            step=self.step,
            complete=complete,
            train_loss=self.sums.mean_loss(),
            train_acc=self.sums.accuracy(),
            val_loss=judged.loss,
            val_acc=judged.accuracy.top1,
            val_images=judged.accuracy.images,
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=self.sums.seconds,
            images_per_second=self.sums.images / self.sums.seconds,
        )
        self.history.append(finished)
        if max(self.history, key=merit) is finished:
            save_weights(self.run.best, self.model, self.config.spec, self._origin(finished))
        if complete:
            self.sums = Sums.zero(self.device)
        self.save()
        self.run.save_history(self.history)
        if not complete or self.epoch == self.recipe.epochs or time.monotonic() - self._drawn > DRAW_EVERY_S:
            draw_curves(self.run.path / "curves.png", {self.run.name: self.history})
            self._drawn = time.monotonic()
        few = "" if finished.val_images == len(self.dataset.val) else f" (on {finished.val_images} images)"
        self.progress.log(
            f"epoch {finished.epoch}/{self.recipe.epochs}{'' if complete else ' (stopped inside)'}:"
            f" train loss {finished.train_loss:.3f} acc {finished.train_acc:.1%},"
            f" {self.dataset.judged_on} loss {finished.val_loss:.3f} acc {finished.val_acc:.1%}{few},"
            f" {finished.images_per_second:.0f} images/s"
        )

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

    def _check_finite(self) -> None:
        """Refuse to go on from, or to save, what is no longer numbers: the loss so far, and the weights themselves."""
        bad = self.sums.first_bad_step()
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

    def _note(self) -> str:
        bad = self.sums.first_bad_step()
        if bad is not None:
            raise self._diverged("the loss", bad)
        return (
            f"epoch {self.epoch + 1}/{self.recipe.epochs} loss {self.sums.mean_loss():.3f}"
            f" acc {self.sums.accuracy():.1%} {self.pace.images_per_second:.0f} images/s"
        )

    def _tell_how_long(self, total: int) -> None:
        left = self.pace.seconds_for(
            train_images=(total - self.step) * self.recipe.batch_size,
            judged_images=(self.recipe.epochs - self.epoch) * len(self.dataset.val),
        )
        self.progress.log(f"the whole will take about {duration(left)} at {self.pace.images_per_second:.0f} images/s")
        if left > LONG_RUN_S:
            self.progress.warn(
                f"{duration(left)} is long: stop at any time and go on with --resume {self.run.name},"
                " give --max-time, or use a GPU"
            )

    def save(self) -> None:
        """Write everything needed to go on from this step. Errors: StorageError, TrainingError if it would keep NaN."""
        self._check_finite()
        save_state(
            self.run.last,
            {
                "step": self.step,
                "fingerprint": self.config.data_fingerprint,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "sums": self.sums.state(),
                "history": [asdict(epoch) for epoch in self.history],
            },
        )

    def restore(self) -> None:
        """Go on from `save`. Errors: CheckpointError if there is nothing to go on from or the data has changed."""
        state = load_state(self.run.last)
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as exc:
            raise CheckpointError(f"{self.run.last} is no training state of this run: {exc}") from exc

    def _restore(self, state: dict[str, Any]) -> None:
        if state["fingerprint"] != self.dataset.manifest.fingerprint:
            raise CheckpointError(f"the data of run {self.run.name} has changed since it was trained")
        if (state["threads"], state["torch"]) != (torch.get_num_threads(), torch.__version__):
            self.progress.warn(
                f"trained so far by torch {state['torch']} on {state['threads']} threads, now"
                f" {torch.__version__} on {torch.get_num_threads()}: the result will differ in the last bits"
            )
        self.model.load_state_dict(state["model"], strict=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.sums = Sums.restored(state["sums"], self.device)
        self.history = [Epoch(**line) for line in state["history"]]


@dataclass(slots=True)
class Sums:
    """Loss and hits of the running epoch, summed on the device so that no step waits for the host."""

    loss: Tensor
    correct: Tensor
    bad_step: Tensor
    """The first step whose loss was not finite, or -1."""
    images: int
    seconds: float
    """Spent in this epoch's steps."""

    @classmethod
    def zero(cls, device: torch.device) -> Sums:
        """The start of an epoch."""
        return cls(
            loss=torch.zeros((), dtype=torch.float64, device=device),
            correct=torch.zeros((), dtype=torch.int64, device=device),
            bad_step=torch.full((), -1, dtype=torch.int64, device=device),
            images=0,
            seconds=0.0,
        )

    @classmethod
    def restored(cls, state: dict[str, object], device: torch.device) -> Sums:
        """What `state` returned."""
        sums = cls.zero(device)
        for name, value in state.items():
            setattr(sums, name, value.to(device) if isinstance(value, Tensor) else value)
        return sums

    def state(self) -> dict[str, object]:
        """All fields, for a checkpoint."""
        return {name: getattr(self, name) for name in ("loss", "correct", "bad_step", "images", "seconds")}

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, step: int) -> None:
        """Count one batch: its mean loss and its logits (B, C)."""
        self.loss += loss.double() * len(labels)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.bad_step = torch.where((self.bad_step < 0) & ~loss.isfinite(), step, self.bad_step)
        self.images += len(labels)

    def mean_loss(self) -> float:
        """Over the images so far."""
        return self.loss.item() / max(self.images, 1)

    def accuracy(self) -> float:
        """Over the images so far, as augmented."""
        return self.correct.item() / max(self.images, 1)

    def first_bad_step(self) -> int | None:
        """The step whose loss was NaN or infinite, if any."""
        step = int(self.bad_step.item())
        return step if step >= 0 else None
