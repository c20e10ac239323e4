"""One run's model, optimizer and position: a step, a judgement, and all that is needed to go on from there.

Batches and dropout are functions of (seed, step), so a resumed run needs no generator's state. The loop over steps is
`training.train`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tinyres.checkpoint import load_state, save_state, save_weights
from tinyres.data.batches import TrainingBatches, seed_for
from tinyres.errors import CheckpointError, StorageError, TrainingError, UsageError
from tinyres.evaluation import compute_logits, evaluation_of
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
    eagerly,
    is_out_of_memory,
)
from tinyres.training.distributed import World
from tinyres.training.ema import Average
from tinyres.training.optim import make_optimizer, restore_optimizer, set_learning_rate
from tinyres.training.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tinyres.data.dataset import Dataset
    from tinyres.evaluation import Evaluation
    from tinyres.progress import Progress
    from tinyres.recipes import Recipe
    from tinyres.runs import Run, RunConfig, State


class Trainer:
    """One run in training. Several processes hold one each and call everything at the same step."""

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        dataset: Dataset,
        *,
        start: Mapping[str, torch.Tensor] | None = None,
        world: World | None = None,
        progress: Progress,
    ) -> None:
        if config.recipe is None:
            raise UsageError(f"the run {run.name} was imported: there is no training to go on with")
        self.run, self.config, self.dataset = run, config, dataset
        self.recipe: Recipe = config.recipe
        self.world = world or World.alone()
        self.device = self.world.device
        self.progress = progress
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
        self.average = Average(self.model) if self.recipe.ema_epochs else None
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.forward: nn.Module = self.model
        """The model as steps call it: shared over processes, compiled."""
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
        return self.average.model if self.average is not None else self.model

    @property
    def precision(self) -> str:
        """What steps and their judgement are computed in."""
        return self.compute.precision if self.compute else "fp32"

    @property
    def compiled(self) -> bool:
        """Whether steps run a compiled model."""
        return self.compute is not None and self.compute.compiled

    def prepare(self, *, strict: bool = False) -> None:
        """Choose how to compute, and compile: what a start pays once, before its first step.

        Errors: CheckpointError if `strict` and a resumed run would not be equal bit for bit; TrainingError.
        """
        before = self.compute
        deterministic = self.config.deterministic
        self.compute = choose(
            self.recipe, self.model, self.world, deterministic=deterministic, before=before, progress=self.progress
        )
        if self.compute.compiled:
            self._compile()
        if before is not None:
            self._tell_of(differences(before, self.compute), strict=strict)
        if self.world.size > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.forward = DistributedDataParallel(self.forward, device_ids=devices, gradient_as_bucket_view=True)

    def _compile(self) -> None:
        """Compile in all processes or in none, before they are joined: one that fails keeps none waiting."""
        problem = None
        try:
            self.forward = compile_model(
                self.model,
                images=self.batches.full_share,
                sizes=picture_sizes(self.recipe),
                device=self.device,
                precision=self.precision,
                progress=self.progress,
            )
        except TrainingError as exc:
            problem = exc
        (failed,) = self.world.any(problem is not None)
        if not failed:
            return
        problem = problem or TrainingError("torch.compile failed in another process", hint="--set compile=off")
        if self.recipe.compile == "on" or self.compute is None:
            raise problem
        self.progress.warn(f"{problem}; going on without")
        self.forward, self.compute = self.model, replace(self.compute, compiled=False)

    def _tell_of(self, changes: list[str], *, strict: bool) -> None:
        if strict and self.device.type == "cuda" and not self.config.deterministic:
            changes = [*changes, "a GPU without --deterministic"]
        if not changes:
            return
        text = f"the run {self.run.name} goes on in another way than it was trained: {'; '.join(changes)}"
        if strict:
            raise CheckpointError(text, hint="resume it as it was, or without --strict-resume")
        self.progress.warn(f"{text}: the result will differ in the last bits")

    def train_step(self) -> int:
        """One step of the optimizer; returns the pictures in its batch, over all processes."""
        recipe, step = self.recipe, self.step
        self.on_phase("data")
        batch = self.batches.batch(step)
        torch.manual_seed(seed_for(self.config.seed, "dropout", step, self.world.rank))
        set_learning_rate(self.optimizer, learning_rate(recipe, step, self.batches.per_epoch))
        self.on_phase("forward")
        self.forward.train()
        # The last batch of an epoch is smaller: compiling for it too would double the wait for one step in hundreds.
        ragged = len(batch.labels) != self.batches.full_share
        with autocast(self.device, self.precision), eagerly(self.compiled and ragged):
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
        if self.average is not None:
            self.average.update(ema_decay(recipe, step, self.batches.per_epoch))
        self.on_phase("sums")
        self.sums.add(loss.detach(), logits.detach(), batch.labels, step)
        self.step += 1
        return batch.total

    def judge(self, count: int) -> Evaluation:
        """The kept model over `count` pictures of the split. Errors: TrainingError if an answer is no number."""
        split = self.dataset.val.spread(count)
        self.world.share_buffers(self.kept)
        images = split.images[self.world.share_of(len(split))]
        with autocast(self.device, self.precision):
            logits = compute_logits(self.kept, images, self.config.spec.preprocess)
        try:
            return evaluation_of(self.world.join_rows(logits), split)
        except ValueError as exc:
            raise self.diverged("an answer", self.step - 1) from exc

    def keep(self, finished: Epoch) -> None:
        """Write the weights of `finished`, the last of the history, where it is the best so far or the last of all."""
        last = finished.complete and finished.epoch == self.recipe.epochs
        if self.world.is_first:
            self.run.require_folder()
        for path, earned in ((self.run.best, max(self.history, key=merit) is finished), (self.run.final, last)):
            if earned and self.world.is_first:
                selected_on = "none" if path == self.run.final else self.dataset.judged_on
                save_weights(path, self.kept, self.config.spec, self._origin(finished, selected_on))

    def _origin(self, epoch: Epoch, selected_on: str) -> Origin:
        return Origin(
            run=self.run.name,
            recipe=self.recipe.name,
            data_kind=self.config.data_kind,
            data_fingerprint=self.config.data_fingerprint,
            epoch=self.epoch,
            step=epoch.step,
            selected_on=selected_on,
        )

    def check_finite(self, sums: Sums) -> None:
        """Refuse to go on from, or to save, what is no longer numbers: the loss so far, and the weights themselves."""
        bad = sums.first_bad_step()
        if bad is not None:
            raise self.diverged("the loss", bad)
        weights = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        finite = bool(torch.stack([value.isfinite().all() for value in weights]).all())
        if self.world.any(not finite)[0]:  # batch norm statistics are each process's own
            raise self.diverged("a weight", self.step - 1)

    def diverged(self, what: str, step: int) -> TrainingError:
        """The error for what is no number any more."""
        rate = learning_rate(self.recipe, step, self.batches.per_epoch)
        kept = "; the last good checkpoint is kept" if self.run.last.is_file() else ""
        return TrainingError(
            f"{what} became NaN or infinite at step {step + 1} (learning rate {rate:.4g})",
            hint=f"try --set lr={self.recipe.lr / 3:.2g}{kept}",
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

    def set_state(self, state: State, message: str = "") -> None:
        """Record in the run's folder where it stands."""
        if self.world.is_first:
            self.run.require_folder()
            self.run.set_state(state, epochs=self.epoch, message=message)

    def save(self) -> None:
        """Write everything needed to go on from this step. Errors: StorageError, TrainingError if it would keep NaN."""
        sums = self.sums.over(self.world)
        self.check_finite(sums)
        if not self.world.is_first:
            return
        self.run.require_folder()
        try:
            save_state(self.run.last, self._state(sums))
        except StorageError as exc:
            kept = f"the checkpoint before it is kept: make room, then tinyres train --resume {self.run.name}"
            raise StorageError(str(exc), hint=kept if self.run.last.is_file() else exc.hint) from exc

    def _state(self, sums: Sums) -> dict[str, Any]:
        return {
            "step": self.step,
            "fingerprint": self.config.data_fingerprint,
            "compute": asdict(self.compute) if self.compute else None,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "sums": sums.state(),
            "history": [asdict(epoch) for epoch in self.history],
        }

    def restore(self) -> None:
        """Go on from `save`. Errors: CheckpointError if there is nothing to go on from or the data has changed."""
        state = self.world.first(load_state(self.run.last) if self.world.is_first else {})
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as exc:
            if is_out_of_memory(exc):
                raise
            problem = str(exc).strip().splitlines()[0]
            raise CheckpointError(f"{self.run.last} is no training state of this run: {problem}") from exc

    def _restore(self, state: dict[str, Any]) -> None:
        if state["fingerprint"] != self.dataset.manifest.fingerprint:
            raise CheckpointError(f"the data of run {self.run.name} has changed since it was trained")
        self.compute = Compute(**state["compute"])
        self.model.load_state_dict(state["model"], strict=True)
        restore_optimizer(self.optimizer, state["optimizer"])
        self.step = state["step"]
        if self.average is not None:
            self.average.model.load_state_dict(state["average"], strict=True)
        if self.world.is_first:
            self.sums = Sums.restored(state["sums"], self.device)
        self.history = [Epoch(**line) for line in state["history"]]
        if self.world.is_first:  # a kill may have come between the state and the history
            self.run.save_history(self.history)
