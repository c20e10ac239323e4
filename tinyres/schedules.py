"""What a recipe asks for at each step of a run: learning rate, size of the pictures, augmentation, weight averaging.

Pure functions of the recipe and the position: a resumed run asks again and gets the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyres.recipes import Recipe

SIZE_STEP = 8
"""Pictures grow by this many pixels: three stages halve them, and each size is compiled once."""


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine or a line down to 0 at the run's end."""
    epoch = step / steps_per_epoch
    if epoch < recipe.warmup_epochs:
        return recipe.lr * (epoch + 1 / steps_per_epoch) / recipe.warmup_epochs
    if recipe.schedule == "cosine-by-epoch":
        epoch = math.floor(epoch)
    rest = recipe.epochs - recipe.warmup_epochs
    share = (epoch - recipe.warmup_epochs) / rest if rest else 1.0  # the end of a run that is all warm-up
    if recipe.schedule == "linear":
        return recipe.lr * (1 - share)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * share))


def picture_size(recipe: Recipe, epoch: int) -> int:
    """Side in pixels of the training pictures in epoch `epoch` (from 0)."""
    full = recipe.image_size
    start, end = recipe.grow
    share = epoch / (recipe.epochs - 1) if recipe.epochs > 1 else 1.0  # the last epoch sees what will be judged
    if share >= end or recipe.start_scale == 1:
        return full
    grown = max(0.0, (share - start) / (end - start)) if end > start else 0.0
    side = full * (recipe.start_scale + (1 - recipe.start_scale) * grown)
    return min(full, max(SIZE_STEP, round(side / SIZE_STEP) * SIZE_STEP))


def picture_sizes(recipe: Recipe) -> list[int]:
    """Every size a run trains on, in the order they come."""
    return list(dict.fromkeys(picture_size(recipe, epoch) for epoch in range(recipe.epochs)))


def is_plain(recipe: Recipe, epoch: int) -> bool:
    """Whether epoch `epoch` (from 0) is one of the last, without strong augmentation."""
    return epoch >= recipe.epochs - recipe.plain_epochs


def ema_decay(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Share of the moving average that outlives step `step` (from 0); small at first, so that no start weighs on it."""
    return min(math.exp(-1 / (recipe.ema_epochs * steps_per_epoch)), (1 + step) / (10 + step))
