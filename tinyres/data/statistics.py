"""Mean and standard deviation of pictures per channel, from exact integer sums, so that order cannot change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Channels = tuple[float, float, float]
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per RGB channel, of values in 0..1."""

    mean: Channels
    std: Channels
    """The mean over pictures of each picture's own std: the seed's definition, used to normalise."""
    std_pixels: Channels
    """Over all pixels of all pictures, which also counts how pictures differ in brightness; larger."""


@dataclass(frozen=True, slots=True)
class ChannelSums:
    """Sums over some pictures; those of all chunks add up to the whole."""

    pictures: int
    pixels: int
    """Per channel."""
    values: tuple[int, int, int]
    squares: tuple[int, int, int]
    stds: Channels
    """Sum of each picture's std, of values in 0..1."""

    @classmethod
    def of(cls, images: NDArray[np.uint8]) -> ChannelSums:
        """Sum (N, H, W, 3) uint8 pictures."""
        count = images.shape[1] * images.shape[2]
        wide = images.reshape(len(images), count, 3).astype(np.uint32)
        values = wide.sum(axis=1, dtype=np.int64)
        squares = (wide * wide).sum(axis=1, dtype=np.int64)
        # n*sum(x^2) - sum(x)^2 in integers: no cancellation.
        stds = np.sqrt(count * squares - values * values) / (count * 255)
        return cls(
            pictures=len(images),
            pixels=len(images) * count,
            values=_triple(values.sum(axis=0).tolist()),
            squares=_triple(squares.sum(axis=0).tolist()),
            stds=_triple(stds.sum(axis=0).tolist()),
        )

    @classmethod
    def total(cls, parts: Sequence[ChannelSums]) -> ChannelSums:
        """Add up the sums of disjoint sets of pictures."""
        return cls(
            pictures=sum(part.pictures for part in parts),
            pixels=sum(part.pixels for part in parts),
            values=_triple([sum(part.values[c] for part in parts) for c in range(3)]),
            squares=_triple([sum(part.squares[c] for part in parts) for c in range(3)]),
            stds=_triple([sum(sorted(part.stds[c] for part in parts)) for c in range(3)]),
        )

    def statistics(self) -> Statistics:
        """Divide, once. Errors: ValueError without a picture."""
        if not self.pictures:
            raise ValueError("no picture was summed")
        variances = [self.pixels * s - v * v for s, v in zip(self.squares, self.values, strict=True)]
        return Statistics(
            mean=_triple([value / (self.pixels * 255) for value in self.values]),
            std=_triple([value / self.pictures for value in self.stds]),
            std_pixels=_triple([float(np.sqrt(float(v))) / (self.pixels * 255) for v in variances]),
        )


def _triple(values: Sequence[Number]) -> tuple[Number, Number, Number]:
    red, green, blue = values
    return red, green, blue
