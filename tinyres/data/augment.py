"""Training batches on the device: random crop after padding, horizontal flip, normalise, for a whole batch at once.

The result for a batch is a function of its pictures and the generator alone. No file is read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from tinyres.spec import Preprocess


def normalize(images: Tensor, preprocess: Preprocess, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in channels-last memory: (x - 255 mean) / (255 std).

    The exported graph does the same two operations in the same order.
    """
    mean = torch.tensor([value * 255 for value in preprocess.mean], dtype=dtype, device=images.device)
    std = torch.tensor([value * 255 for value in preprocess.std], dtype=dtype, device=images.device)
    return ((images.to(dtype) - mean) / std).permute(0, 3, 1, 2)


def crop_and_flip(images: Tensor, *, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each picture by up to `padding` pixels over a black border and mirror half of them.

    `images` is (N, S, S, 3) uint8 on any device; `generator` lives on the CPU, so that every device draws the same.
    """
    count, size = images.shape[0], images.shape[1]
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    steps = torch.arange(size)
    rows = top[:, None] + steps
    columns = left[:, None] + torch.where((mirrored & flip)[:, None], steps.flip(0), steps)
    padded = functional.pad(images, (0, 0, padding, padding, padding, padding))
    side = size + 2 * padding
    index = (torch.arange(count)[:, None, None] * side + rows[:, :, None]) * side + columns[:, None, :]
    flat = padded.reshape(-1, 3)
    return flat.index_select(0, index.reshape(-1).to(images.device)).reshape(images.shape)
