"""Hyperparameters as frozen dataclasses: a recipe is everything that training does with given data and seed.

It holds no paths and no device. `override` applies `--set field=value`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinyres import records
from tinyres.errors import UsageError, require_choice, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to train."""

    name: str
    about: str

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    dropout: float = 0.0
    init: Literal["torch", "kaiming"] = "kaiming"
    image_size: int = 64

    epochs: int
    batch_size: int
    lr: float
    """At its peak."""
    schedule: Literal["cosine-by-epoch", "cosine"]
    """Falls to 0 over the run: in steps of an epoch, or at every step."""
    warmup_epochs: float = 0.0
    """The learning rate rises linearly from 0."""
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop_padding: int = 4
    """Pixels of black border that the random crop may take in."""
    flip: bool = True

    def __post_init__(self) -> None:
        checks = {
            "image_size": (8 <= self.image_size <= 512, "8 to 512"),
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "lr": (0 < self.lr < 100, "above 0, below 100"),
            "warmup_epochs": (0 <= self.warmup_epochs <= self.epochs, "0 up to epochs"),
            "momentum": (0 <= self.momentum < 1, "0 up to, not including, 1"),
            "weight_decay": (0 <= self.weight_decay < 1, "0 up to, not including, 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 up to, not including, 1"),
            "crop_padding": (0 <= self.crop_padding <= self.image_size, "0 up to image_size"),
            "nesterov": (not self.nesterov or self.momentum > 0, "false where momentum is 0"),
        }
        for field, (fits, valid) in checks.items():
            if not fits:
                raise UsageError(f"recipe {self.name}: {field} cannot be {getattr(self, field)}; valid: {valid}")


SEED = Recipe(
    name="seed",
    about="the original project's values: 100 epochs, batch 64, lr 0.01",
    dropout=0.4,
    init="torch",
    epochs=100,
    batch_size=64,
    lr=0.01,
    schedule="cosine-by-epoch",
    weight_decay=4e-4,
)

CLASSIC = Recipe(
    name="classic",
    about="100 epochs with the rate, decay and warm-up of published runs",
    # cs-giung/giung2-jax, Baseline-TinyImageNet: 66.9 % on the official validation set, from 90,000 pictures.
    epochs=100,
    batch_size=128,
    lr=0.1,
    schedule="cosine",
    warmup_epochs=5.0,
    nesterov=True,
    weight_decay=5e-4,
)

DEMO = Recipe(
    name="demo",
    about="a small network for the drawn shapes: minutes on a laptop's CPU",
    blocks=(1, 1, 1, 1),
    widths=(16, 32, 64, 128),
    epochs=5,
    batch_size=64,
    lr=0.05,
    schedule="cosine",
    warmup_epochs=1.0,
    nesterov=True,
    weight_decay=5e-4,
    label_smoothing=0.05,
    crop_padding=4,
)

RECIPES = {recipe.name: recipe for recipe in (SEED, CLASSIC, DEMO)}


@dataclass(frozen=True, slots=True)
class _Saved:
    """The part of a run's config.json that is its recipe."""

    recipe: Recipe


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, or that of a run, from its config.json.

    Errors: UsageError that suggests the close match; InputError for a file that holds none.
    """
    if name.endswith(".json"):
        return records.load(_Saved, Path(name)).recipe
    require_choice("recipe", name, RECIPES)
    return RECIPES[name]


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """Apply `field=value` texts. Errors: UsageError for an unknown field or a value that does not fit."""
    from pydantic import TypeAdapter, ValidationError

    values = dataclasses.asdict(recipe)
    fields = [name for name in values if name not in ("name", "about")]
    for assignment in assignments:
        field, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected field=value", hint="valid fields: " + ", ".join(fields))
        if field not in fields:
            raise UsageError(f"recipe {recipe.name} has no field {field!r}", hint=suggest(field, fields))
        values[field] = _parse(text)
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as exc:
        problem = exc.errors()[0]
        field = str(problem["loc"][0])
        before = getattr(recipe, field)
        example = ",".join(map(str, before)) if isinstance(before, tuple) else before
        message = f"recipe {recipe.name}: {field} cannot be {problem['input']!r}"
        raise UsageError(message, hint=f"for example --set {field}={example}") from exc


def _parse(text: str) -> object:
    """JSON where it is JSON (numbers, true, [1, 2]), a list where it has commas, else the text itself."""
    for candidate in (text, f"[{text}]" if "," in text else text):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return text
