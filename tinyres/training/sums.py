"""Loss and hits of the running epoch, summed on the device so that no step waits for the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tinyres.training.distributed import World


@dataclass(slots=True)
class Sums:
    """One process's sums over the epoch so far."""

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

    def over(self, world: World) -> Sums:
        """The sums of all processes together."""
        if world.size == 1:
            return self
        return Sums(
            loss=world.sum(self.loss),
            correct=world.sum(self.correct),
            bad_step=world.most(self.bad_step),
            images=int(world.sum(torch.tensor(self.images, device=self.loss.device)).item()),
            seconds=self.seconds,
        )

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor, step: int) -> None:
        """Count one batch: the sum of its losses and its logits (B, C)."""
        self.loss += loss.double()
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
