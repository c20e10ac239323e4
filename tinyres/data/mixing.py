"""Strong augmentation by torchvision's own transforms: TrivialAugment and erasing, CutMix and mixup.

torchvision draws once a call, so a batch is cut into small groups that draw apart: as many kernels as a GPU can take,
and enough variety. Draws come from torch's global generator, which the caller seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.transforms import v2

if TYPE_CHECKING:
    from tinyres.recipes import Recipe

GROUP = 16


def distort(images: Tensor, recipe: Recipe) -> Tensor:
    """TrivialAugment on (N, S, S, 3) uint8 as the recipe asks."""
    if not recipe.trivial_augment:
        return images
    augment = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
    return _by_groups(images.permute(0, 3, 1, 2), augment).permute(0, 2, 3, 1).contiguous()


def erase(inputs: Tensor, recipe: Recipe) -> Tensor:
    """Erase rectangles of normalised pictures (N, 3, S, S): to 0, the mean of all."""
    if not recipe.random_erasing:
        return inputs
    return _by_groups(inputs, v2.RandomErasing(p=recipe.random_erasing))


def mix(inputs: Tensor, labels: Tensor, recipe: Recipe, *, classes: int) -> tuple[Tensor, Tensor]:
    """Mix pictures (N, 3, S, S) and labels (N,) with their neighbours: targets are (N,), or (N, C) shares if mixed."""
    if recipe.mix_share == 0 or len(labels) < 2 or torch.rand(()) >= recipe.mix_share:
        return inputs, labels
    ways = [
        way(alpha=alpha, num_classes=classes)
        for way, alpha in ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        if alpha > 0
    ]
    mixed, targets = ways[int(torch.randint(len(ways), ()))](inputs, labels)
    return mixed.contiguous(memory_format=torch.channels_last), targets


def _by_groups(images: Tensor, transform: v2.Transform) -> Tensor:
    parts = [transform(group) for group in torch.split(images, GROUP)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)
