"""Small things that many tests need by name: a recipe that trains in a second, pictures in folders, a trained run."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from tinyres import recipes
from tinyres.data import shapes
from tinyres.launch import Started

TINY = replace(recipes.DEMO, name="tiny", blocks=(1, 1), widths=(8, 16), image_size=16, epochs=3, batch_size=16)
"""Trains in a second or two on a few hundred pictures."""


def write_pictures(folder: Path, *, classes: int, each: int, split: str = "train", size: int = 16) -> Path:
    """A folder per class of drawn pictures, as PNG."""
    for index in range(classes * each):
        label = shapes.label_of(index) if classes == len(shapes.CLASSES) else index % classes
        number = (index // classes) * len(shapes.CLASSES) + label
        home = folder / shapes.CLASSES[label]
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shapes.render(split, number, size)).save(home / f"{index}.png")
    return folder


@dataclass(frozen=True)
class TrainedRun:
    """A tiny run and the folder it lies in."""

    started: Started
    runs: Path

    @property
    def best(self) -> Path:
        return self.started.run.best


class StopAfter(threading.Event):
    """An interrupt that comes after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0
