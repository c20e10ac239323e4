"""The training batches of a run: batch k is a function of (data, recipe, seed, k), so a run can go on from any step.

The pictures stay uint8 until they are on the device, and lie there whole where it is a GPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tinyres.data.augment import Moves, move_on_device, move_on_host, normalize

if TYPE_CHECKING:
    from tinyres.data.dataset import Split
    from tinyres.recipes import Recipe
    from tinyres.spec import Preprocess


class TrainingBatches:
    """Shuffled, augmented and normalised batches; every picture once an epoch, the last batch of an epoch ragged."""

    def __init__(
        self, split: Split, recipe: Recipe, preprocess: Preprocess, *, seed: int, device: torch.device
    ) -> None:
        self._split, self._recipe, self._preprocess = split, recipe, preprocess
        self._seed, self._device = seed, device
        self._labels = torch.from_numpy(np.array(split.labels)).to(device)
        # A whole training set fits a GPU (1.2 GB for Tiny ImageNet), and then no step waits for the host.
        self._resident = torch.from_numpy(np.array(split.images)).to(device) if device.type != "cpu" else None
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self.per_epoch = math.ceil(len(split) / recipe.batch_size)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Batch `step`, counted from the run's start: (B, 3, S, S) float32 channels-last, and labels (B,)."""
        epoch, within = divmod(step, self.per_epoch)
        if self._order[0] != epoch:
            order = torch.randperm(len(self._split), generator=generator_for(self._seed, "order", epoch))
            self._order = (epoch, order)
        chosen = self._order[1][within * self._recipe.batch_size : (within + 1) * self._recipe.batch_size]
        moves = Moves.draw(
            len(chosen),
            padding=self._recipe.crop_padding,
            flip=self._recipe.flip,
            generator=generator_for(self._seed, "augment", step),
        )
        if self._resident is None:
            pixels = move_on_host(self._split.images, chosen.numpy(), moves)
        else:
            pixels = move_on_device(self._resident[chosen.to(self._device)], moves)
        return normalize(pixels, self._preprocess), self._labels[chosen.to(self._device)]


_STREAMS = {"order": 1, "augment": 2, "dropout": 3}


def seed_for(seed: int, stream: str, number: int) -> int:
    """A 63-bit seed for draw `number` of an independent stream: nothing random depends on what was drawn before."""
    state = np.random.SeedSequence((seed, _STREAMS[stream], number)).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def generator_for(seed: int, stream: str, number: int) -> torch.Generator:
    """A CPU generator started from `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, stream, number))
