"""Training pictures, a whole batch at once: random crop after padding, horizontal flip, resize, normalise.

What is done to each picture is drawn first and is the same on every device; the pixels are then moved where they lie,
by copying rectangles on the host and by one gather on a GPU. Strong augmentation is in `data.mixing`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as functional_v2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.spec import Preprocess


@dataclass(frozen=True, slots=True)
class Moves:
    """What is done to each picture of a batch."""

    padding: int
    top: Tensor
    """(N,) rows to skip of the padded picture, 0 to 2 * padding."""
    left: Tensor
    """(N,) the same for columns."""
    mirrored: Tensor
    """(N,) bool; after the crop."""

    @classmethod
    def draw(cls, count: int, *, padding: int, flip: bool, generator: torch.Generator) -> Moves:
        """Draw moves for `count` pictures; `generator` lives on the CPU, so that every device does the same."""
        top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
        mirrored = torch.rand(count, generator=generator) < (0.5 if flip else 0.0)
        return cls(padding, top, left, mirrored)

    def part(self, chosen: slice) -> Moves:
        """The moves of some of the pictures."""
        return Moves(self.padding, self.top[chosen], self.left[chosen], self.mirrored[chosen])


def move_on_host(images: NDArray[np.uint8], chosen: NDArray[np.int64], moves: Moves) -> Tensor:
    """Pick and move pictures of `images` (M, S, S, 3), which may be memory-mapped: (N, S, S, 3) uint8 on the CPU.

    Each picture is one copy of a rectangle into black; a gather by pixel touches each one on its own.
    """
    size, padding = images.shape[1], moves.padding
    moved = np.zeros((len(chosen), size, size, 3), dtype=np.uint8)
    for place, (index, top, left) in enumerate(
        zip(chosen.tolist(), moves.top.tolist(), moves.left.tolist(), strict=True)
    ):
        rows, from_rows = _overlap(size, top - padding)
        columns, from_columns = _overlap(size, left - padding)
        moved[place, rows, columns] = images[index, from_rows, from_columns]
    result = torch.from_numpy(moved)
    result[moves.mirrored] = result[moves.mirrored].flip(2)
    return result


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """Where a line of `size` still lies after a shift, and what of it that is; empty for a shift past its end."""
    start = max(0, -shift)
    stop = max(start, min(size, size - shift))
    return slice(start, stop), slice(start + shift, stop + shift)


def move_on_device(images: Tensor, moves: Moves) -> Tensor:
    """Move pictures (N, S, S, 3) uint8 that lie on a device, in one gather; only the moves travel to it."""
    count, size = images.shape[0], images.shape[1]
    top, left, mirrored = (to_device(drawn, images.device) for drawn in (moves.top, moves.left, moves.mirrored))
    steps = torch.arange(size, device=images.device)
    rows = top[:, None] + steps
    columns = left[:, None] + torch.where(mirrored[:, None], steps.flip(0), steps)
    padding = moves.padding
    padded = functional.pad(images, (0, 0, padding, padding, padding, padding))
    side = size + 2 * padding
    index = (torch.arange(count, device=images.device)[:, None, None] * side + rows[:, :, None]) * side
    flat = padded.reshape(-1, 3)
    return flat.index_select(0, (index + columns[:, None, :]).reshape(-1)).reshape(images.shape)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`. To a GPU it goes by pinned memory: otherwise the host waits for all that runs there."""
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def resize(images: Tensor, size: int) -> Tensor:
    """(N, S, S, 3) uint8 to (N, size, size, 3) with the filter that decoding uses: bicubic, antialiased."""
    if images.shape[1] == size:
        return images
    planes = images.permute(0, 3, 1, 2)  # in channels-last memory, which torch resizes as it lies
    resized: Tensor = functional_v2.resize(
        planes, [size, size], functional_v2.InterpolationMode.BICUBIC, antialias=True
    )
    return resized.permute(0, 2, 3, 1).contiguous()


def normalize(images: Tensor, preprocess: Preprocess, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in channels-last memory: (x - 255 mean) / (255 std).

    The exported graph does the same two operations in the same order.
    """
    count, height, width, _ = images.shape
    mean, std = _constants(preprocess, width, dtype, images.device)
    rows = images.reshape(count, height, width * 3).to(dtype)
    return rows.sub_(mean).div_(std).reshape(count, height, width, 3).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=64)
def _constants(preprocess: Preprocess, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """255 mean and 255 std, on the device once: sending them makes the host wait.

    Repeated over a row, since an inner dimension of three would keep the CPU from working on many at once.
    """
    with torch.inference_mode(mode=False):
        mean, std = (
            torch.tensor([value * 255 for value in values] * width, dtype=dtype, device=device)
            for values in (preprocess.mean, preprocess.std)
        )
    return mean, std
