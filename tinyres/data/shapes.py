"""The embedded data set: ten shapes drawn with clutter, for demo, tests and golden vectors.

Picture k of a split is a function of (seed, split, k) and nothing else, so any process draws the same. It is no
benchmark: everything made from it says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("circle", "ring", "triangle", "square", "pentagon", "star", "cross", "crescent", "arrow", "heart")
SIZES = {"train": 5000, "val": 1000}
_SPLIT_SEEDS = {"train": 1, "val": 2, "golden": 3}
_SUPERSAMPLE = 3
"""Drawn at three times the size and shrunk: ImageDraw has no antialiasing."""


def label_of(index: int) -> int:
    """The class of picture `index`: they take turns, so every split is balanced."""
    return index % len(CLASSES)


def render(split: str, index: int, size: int = 64) -> NDArray[np.uint8]:
    """Draw picture `index` of `split` (train, val or golden) as (size, size, 3) uint8 RGB."""
    rng = np.random.default_rng((20261124, _SPLIT_SEEDS[split], index))
    side = size * _SUPERSAMPLE
    image = _background(rng, side)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 6)):
        _clutter(draw, rng, side)
    _shape(image, rng, CLASSES[label_of(index)])
    for _ in range(rng.integers(0, 3)):  # a few lines in front, as twigs and wires are in photographs
        _line(draw, rng, side)
    small = image.resize((size, size), Image.Resampling.BOX)
    noise = rng.normal(0, rng.uniform(2, 10), (size, size, 3))
    return np.clip(np.asarray(small, dtype=np.float64) + noise, 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    corners = rng.integers(0, 140, (2, 2, 3)).astype(np.uint8)
    return Image.fromarray(corners).resize((side, side), Image.Resampling.BILINEAR)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _bright(rng: np.random.Generator) -> tuple[int, int, int]:
    """A shape is lighter than its ground: colour alone tells no class, but a small network finds the outline soon."""
    red, green, blue = (int(value) for value in rng.integers(120, 256, 3))
    return red, green, blue


def _line(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    ends = [float(value) for value in rng.uniform(0, side, 4)]
    draw.line(ends, fill=_color(rng), width=int(rng.integers(1, max(2, 1 + side // 48))))


def _clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    x, y = rng.uniform(0, side, 2)
    reach = side * rng.uniform(0.03, 0.12)
    if rng.random() < 0.5:
        _line(draw, rng, side)
    else:
        points = [(float(x + dx), float(y + dy)) for dx, dy in rng.uniform(-reach, reach, (4, 2))]
        draw.polygon(points, fill=_color(rng))


def _shape(image: Image.Image, rng: np.random.Generator, name: str) -> None:
    outline, hole = _OUTLINES[name]
    side = image.width
    radius = side * rng.uniform(0.25, 0.42)
    center = side / 2 + rng.uniform(-0.5, 0.5, 2) * (side - 2 * radius) * 0.8
    turn = rng.uniform(-math.pi / 5, math.pi / 5)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    stretch = rng.uniform(0.8, 1.25, 2) / 1.1

    def placed(points: NDArray[np.float64]) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in (points * stretch) @ rotation.T * radius + center]

    mask = Image.new("1", (side, side))
    ImageDraw.Draw(mask).polygon(placed(outline), fill=1)
    if hole is not None:
        ImageDraw.Draw(mask).polygon(placed(hole), fill=0)
    image.paste(_bright(rng), mask=mask)


def _regular(corners: int) -> NDArray[np.float64]:
    angles = np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> NDArray[np.float64]:
    reach = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return _regular(10) * reach[:, None]


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], axis=1) / 16.0


def _polygon(*points: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(points, dtype=np.float64)


_ROUND = _regular(48)
_CROSS = _polygon(
    (-0.32, -1), (0.32, -1), (0.32, -0.32), (1, -0.32), (1, 0.32), (0.32, 0.32),
    (0.32, 1), (-0.32, 1), (-0.32, 0.32), (-1, 0.32), (-1, -0.32), (-0.32, -0.32),
)  # fmt: skip
_ARROW = _polygon((1, 0), (0.1, 0.85), (0.1, 0.32), (-1, 0.32), (-1, -0.32), (0.1, -0.32), (0.1, -0.85))
_OUTLINES: dict[str, tuple[NDArray[np.float64], NDArray[np.float64] | None]] = {
    "circle": (_ROUND, None),
    "ring": (_ROUND, _ROUND * 0.55),
    "triangle": (_regular(3), None),
    "square": (_regular(4), None),
    "pentagon": (_regular(5), None),
    "star": (_star(), None),
    "cross": (_CROSS, None),
    "crescent": (_ROUND, _ROUND * 0.8 + np.array([0.45, 0.0])),
    "arrow": (_ARROW, None),
    "heart": (_heart(), None),
}
"""Unit outlines, and the hole cut out of them."""
