"""What a model is: its network, its classes, and how any picture becomes its input.

A ModelSpec is saved in every checkpoint and artifact, and nothing else decides preprocessing: training, evaluation,
export, runtime and bench read it from here. It does not hold weights or hyperparameters of training.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tinyres.errors import UsageError
from tinyres.harmless import acts

TINY_IMAGENET_MEAN = (0.4802, 0.4481, 0.3975)
TINY_IMAGENET_STD = (0.2296, 0.2263, 0.2255)
"""The seed's constants. The std is the mean over images of each image's own std (`tinyres data stats` shows both)."""

SHOWN = 3
"""Of hundreds of classes, where a spec is printed."""


class HasClasses(Protocol):
    """A spec, or the manifest of a data set."""

    @property
    def class_ids(self) -> tuple[str, ...]:
        """Of each class, in order."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """For people."""


def classes_apart(a: HasClasses, b: HasClasses, who: tuple[str, str]) -> str:
    """What differs between the classes of two things, which are called `who`."""
    parts = []
    for ours, theirs, owner in ((a, b, who[0]), (b, a, who[1])):
        known = set(theirs.class_ids)
        only = [name for class_id, name in zip(ours.class_ids, ours.class_names, strict=True) if class_id not in known]
        more = f" and {len(only) - SHOWN:,} more" if len(only) > SHOWN else ""
        parts += [f"only in {owner}: {', '.join(only[:SHOWN])}{more}"] if only else []
    return "; ".join(parts) or "their order differs"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How any picture becomes the input: EXIF orientation, RGB, short side, centre crop, then (x / 255 - mean) / std.

    The first four steps are `tinyres.decode`; the last is inside every artifact that takes uint8 pictures.
    """

    image_size: int = 64
    """Height and width in pixels."""
    mean: tuple[float, float, float] = TINY_IMAGENET_MEAN
    """Per RGB channel, of values in 0..1."""
    std: tuple[float, float, float] = TINY_IMAGENET_STD
    color: Literal["RGB"] = "RGB"
    layout: Literal["NHWC"] = "NHWC"
    """Of the uint8 pictures given to an artifact."""
    resize: Literal["bicubic-antialias"] = "bicubic-antialias"
    """Pillow's bicubic, which widens its support when it shrinks; the short side becomes image_size."""
    crop: Literal["center"] = "center"

    def __post_init__(self) -> None:
        if not 8 <= self.image_size <= 512:
            raise UsageError(f"image_size is {self.image_size}; valid: 8 to 512")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise UsageError(f"mean {self.mean} and std {self.std} must be finite, and std above 0")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A ResNet of basic blocks for small images: 3x3 stride-1 stem, no max-pool, stages after the first halve."""

    class_names: tuple[str, ...]
    """What a person reads, in the order of the outputs."""
    class_ids: tuple[str, ...]
    """Folder names or WordNet ids, in the same order; unique."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    dropout: float = 0.4
    """Before the classifier, while training."""
    preprocess: Preprocess = field(default_factory=Preprocess)

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.class_ids) or len(self.class_ids) < 2:
            raise UsageError(
                f"{len(self.class_names)} class names and {len(self.class_ids)} ids; valid: equal counts, at least 2"
            )
        if odd := next((name for name in (*self.class_ids, *self.class_names) if acts(name)), None):
            raise UsageError(f"class name {odd[:60]!r} holds control characters", hint="rename it")
        if len(set(self.class_ids)) != len(self.class_ids):
            twice = Counter(self.class_ids).most_common(1)[0][0]
            raise UsageError(f"class ids are not unique: {twice!r} is there twice", hint="name each class once")
        if len(self.blocks) != len(self.widths) or not 1 <= len(self.blocks) <= 6:
            raise UsageError(
                f"blocks {self.blocks} and widths {self.widths}; valid: equal counts, 1 to 6 stages",
                hint="--set blocks=2,2,2,2 --set widths=64,128,256,512, for example",
            )
        if not all(1 <= count <= 64 for count in self.blocks) or not all(1 <= width <= 4096 for width in self.widths):
            raise UsageError(f"blocks {self.blocks} or widths {self.widths} out of range (1..64, 1..4096)")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is {self.dropout}; valid: 0 up to, not including, 1")
        if self.preprocess.image_size < 2 ** (len(self.blocks) - 1):
            raise UsageError(
                f"image_size {self.preprocess.image_size} is too small for {len(self.blocks)} stages",
                hint=f"valid: {2 ** (len(self.blocks) - 1)} or more, or fewer blocks and widths",
            )

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.class_names[:SHOWN])) + (", ..." if self.classes > SHOWN else "")
        return (
            f"ModelSpec({self.classes} classes: {names}; blocks={self.blocks}, widths={self.widths},"
            f" dropout={self.dropout}, image_size={self.preprocess.image_size})"
        )

    @property
    def classes(self) -> int:
        """The number of outputs."""
        return len(self.class_ids)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of one uint8 picture."""
        return (self.preprocess.image_size, self.preprocess.image_size, 3)
