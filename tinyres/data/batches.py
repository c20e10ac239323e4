"""The training batches of a run: batch k is a function of (data, recipe, seed, k), so a run can go on from any step.

The pictures stay uint8 until they are on the device, and lie there whole where it is a GPU. Several processes cut the
same batch into shares: how many there are changes no picture's place, crop or flip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tinyres.data.augment import Moves, move_on_device, move_on_host, normalize, resize, to_device
from tinyres.data.mixing import distort, erase, mix
from tinyres.errors import UsageError
from tinyres.schedules import is_plain, picture_size, picture_sizes

if TYPE_CHECKING:
    from tinyres.data.dataset import Split
    from tinyres.recipes import Recipe
    from tinyres.spec import ModelSpec

RESIDENT_SHARE = 0.4
"""Of a GPU's free memory; a larger training set stays with the host, and each batch is sent."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One process's share of a batch."""

    inputs: Tensor
    """(B, 3, S, S) float32, channels-last."""
    targets: Tensor
    """(B,) classes, or (B, C) shares of them where pictures are mixed."""
    labels: Tensor
    """(B,) the class of each picture before mixing."""
    total: int
    """Pictures in the whole batch, over all processes."""


class TrainingBatches:
    """Shuffled, augmented and normalised batches; every picture once an epoch, the last batch of an epoch ragged."""

    def __init__(
        self,
        split: Split,
        spec: ModelSpec,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        """Errors: UsageError for an epoch whose last batch is too small for the processes, or for batch norm."""
        self._split, self._spec, self._recipe = split, spec, recipe
        self._seed, self._device, self._rank, self._processes = seed, device, rank, processes
        self._labels = torch.from_numpy(np.array(split.labels)).to(device)
        # Tiny ImageNet is 1.2 GB: on a GPU it lies whole, and no step waits for the host.
        self._resident = torch.from_numpy(np.array(split.images)).to(device) if _fits(split, device) else None
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._first_mirrored = torch.rand(len(split), generator=generator_for(seed, "flip", 0)) < 0.5
        self.per_epoch = math.ceil(len(split) / recipe.batch_size)
        self._full = min(len(split), recipe.batch_size)
        self._last = len(split) - (self.per_epoch - 1) * recipe.batch_size
        if self._last < processes:
            raise UsageError(
                f"{len(split)} pictures in batches of {recipe.batch_size} leave {self._last} for the last batch of an"
                f" epoch, but {processes} processes need one each",
                hint=f"--set batch_size={recipe.batch_size + 1}, or another",
            )

        side = min(picture_sizes(recipe)) / 2 ** (len(spec.blocks) - 1)
        if side <= 1 and self._last // processes == 1:
            raise UsageError(
                f"pictures of {min(picture_sizes(recipe))} pixels end in one value a channel, and the last batch of an"
                " epoch has one picture: batch norm needs two values",
                hint=f"--set batch_size={recipe.batch_size + 1}, or larger pictures",
            )

    @property
    def full_share(self) -> int:
        """This process's pictures of a whole batch."""
        return len(range(self._full)[self._share(self._full)])

    def batch(self, step: int) -> Batch:
        """This process's share of batch `step`, counted from the run's start."""
        recipe = self._recipe
        epoch, within = divmod(step, self.per_epoch)
        whole = self._order_of(epoch)[within * recipe.batch_size : (within + 1) * recipe.batch_size]
        share = self._share(len(whole))
        chosen = whole[share]
        pixels = self._pixels(chosen, self._moves(step, epoch, whole).part(share))
        labels = self._labels[to_device(chosen, self._device)]
        pixels = resize(pixels, picture_size(recipe, epoch))
        if is_plain(recipe, epoch):
            return Batch(normalize(pixels, self._spec.preprocess), labels, labels, len(whole))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self._seed, "mixing", step, self._rank))
            inputs = erase(normalize(distort(pixels, recipe), self._spec.preprocess), recipe)
            inputs, targets = mix(inputs, labels, recipe, classes=self._spec.classes)
        return Batch(inputs, targets, labels, len(whole))

    def _share(self, total: int) -> slice:
        return slice(total * self._rank // self._processes, total * (self._rank + 1) // self._processes)

    def _order_of(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            order = torch.randperm(len(self._split), generator=generator_for(self._seed, "order", epoch))
            self._order = (epoch, order)
        return self._order[1]

    def _moves(self, step: int, epoch: int, whole: Tensor) -> Moves:
        recipe = self._recipe
        moves = Moves.draw(
            len(whole),
            padding=recipe.crop_padding,
            flip=recipe.flip == "random",
            generator=generator_for(self._seed, "augment", step),
        )
        if recipe.flip == "alternating":
            moves.mirrored.copy_(self._first_mirrored[whole] ^ (epoch % 2 == 1))
        return moves

    def _pixels(self, chosen: Tensor, moves: Moves) -> Tensor:
        if self._resident is None:
            return to_device(move_on_host(self._split.images, chosen.numpy(), moves), self._device)
        return move_on_device(self._resident[to_device(chosen, self._device)], moves)


def _fits(split: Split, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return bool(split.images.nbytes < RESIDENT_SHARE * free)


_STREAMS = {"order": 1, "augment": 2, "dropout": 3, "flip": 4, "mixing": 5}


def seed_for(seed: int, stream: str, number: int, rank: int = 0) -> int:
    """A 63-bit seed for draw `number` of an independent stream: nothing random depends on what was drawn before."""
    state = np.random.SeedSequence((seed, _STREAMS[stream], number, rank)).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def generator_for(seed: int, stream: str, number: int) -> torch.Generator:
    """A CPU generator started from `seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, stream, number))
