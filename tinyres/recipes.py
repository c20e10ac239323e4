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

    # The network. With --init it comes from the model that training starts from.
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks of each stage."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage."""
    dropout: float = 0.0
    """Before the classifier."""
    init: Literal["torch", "kaiming"] = "kaiming"
    """How weights begin: as torch's layers do, or by He et al. 2015 (kaiming)."""
    zero_init_residual: bool = False
    """Each block starts as its skip alone: the scale of its last batch norm is 0."""
    image_size: int = 64
    """Side of the pictures that the model takes, in pixels."""

    # How long, and how fast.
    epochs: int
    """Passes over the training pictures."""
    batch_size: int
    """Over all processes together."""
    lr: float
    """At its peak."""
    schedule: Literal["cosine-by-epoch", "cosine", "linear"]
    """Falls to 0 over the run: in steps of an epoch, or at every step."""
    warmup_epochs: float = 0.0
    """The learning rate rises linearly from 0."""
    backbone_lr: float = 1.0
    """Share of lr for all layers but the classifier; other than 1 only with --init."""

    # The optimizer (SGD) and what is kept of its path.
    momentum: float = 0.9
    """Of SGD."""
    nesterov: bool = False
    """Nesterov's form of it."""
    weight_decay: float = 5e-4
    """Share of each weight, times lr, that a step takes off it."""
    decay_norm_and_bias: bool = True
    """Whether weight decay takes from the scales of batch norms and from biases too."""
    ema_epochs: float = 0.0
    """Time constant of a moving average (EMA) of the weights, which is then what is judged and kept; 0: none."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""

    # The pictures.
    start_scale: float = 1.0
    """Side of the training pictures at first, as a share of image_size (rounded to multiples of 8)."""
    grow: tuple[float, float] = (0.6, 0.85)
    """The pictures grow to image_size between these shares of the run."""
    crop_padding: int = 4
    """Pixels of black border that the random crop may take in."""
    flip: Literal["off", "random", "alternating"] = "random"
    """alternating: half the pictures are mirrored in even epochs, the other half in odd ones."""
    trivial_augment: bool = False
    """TrivialAugmentWide (Mueller and Hutter 2021), drawn for each 16 pictures."""
    random_erasing: float = 0.0
    """Probability of a grey rectangle, drawn for each 16 pictures."""
    mix_share: float = 0.0
    """Share of batches that are mixed, by mixup or CutMix at equal odds."""
    mixup: float = 0.0
    """Alpha of the Beta distribution; 0: no mixup."""
    cutmix: float = 0.0
    """The same for CutMix."""
    plain_epochs: int = 0
    """So many epochs at the end without TrivialAugment, erasing and mixing."""

    # The arithmetic.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast where the device computes it faster, tried before the first step."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU."""
    sync_batchnorm: bool = False
    """Batch statistics over all GPUs instead of each one's share."""

    def __post_init__(self) -> None:
        share = "0 to 1"
        checks = {
            "image_size": (8 <= self.image_size <= 512, "8 to 512"),
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "lr": (0 < self.lr < 100, "above 0, below 100"),
            "warmup_epochs": (0 <= self.warmup_epochs <= self.epochs, "0 up to epochs"),
            "backbone_lr": (0 <= self.backbone_lr <= 10, "0 to 10"),
            "momentum": (0 <= self.momentum < 1, "0 up to, not including, 1"),
            "nesterov": (not self.nesterov or self.momentum > 0, "false where momentum is 0"),
            "weight_decay": (0 <= self.weight_decay < 1, "0 up to, not including, 1"),
            "ema_epochs": (0 <= self.ema_epochs <= self.epochs, "0 up to epochs"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 up to, not including, 1"),
            "start_scale": (0.25 <= self.start_scale <= 1, "0.25 to 1"),
            "grow": (0 <= self.grow[0] <= self.grow[1] <= 1, "two rising shares of the run, 0 to 1"),
            "crop_padding": (0 <= self.crop_padding <= self.image_size, "0 up to image_size"),
            "random_erasing": (0 <= self.random_erasing <= 1, share),
            "mix_share": (0 <= self.mix_share <= 1, share),
            "mixup": (0 <= self.mixup <= 10, "0 to 10"),
            "cutmix": (0 <= self.cutmix <= 10, "0 to 10"),
            "plain_epochs": (0 <= self.plain_epochs <= self.epochs, "0 up to epochs"),
        }
        for field, (fits, valid) in checks.items():
            if not fits:
                raise UsageError(f"recipe {self.name}: {field} cannot be {getattr(self, field)}; valid: {valid}")
        if self.mix_share > 0 and not (self.mixup > 0 or self.cutmix > 0):
            raise UsageError(
                f"recipe {self.name}: mix_share is {self.mix_share}, but neither mixup nor cutmix is set",
                hint="--set mixup=0.2, --set cutmix=1 or --set mix_share=0, for example",
            )


SEED = Recipe(
    name="seed",
    about="the original project's values: 100 epochs, batch 64, lr 0.01 (61.7 % on its hold-out)",
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
    about="the seed's 100 epochs with the learning rate, decay and warm-up of published runs",
    # cs-giung/giung2-jax, Baseline-TinyImageNet: 66.9 % on the official validation set, from 90,000 pictures.
    epochs=100,
    batch_size=128,
    lr=0.1,
    schedule="cosine",
    warmup_epochs=5.0,
    nesterov=True,
    weight_decay=5e-4,
)

FAST = Recipe(
    name="fast",
    about="ResNet-34 in minutes on a GPU (not run yet): 18 epochs that start on small pictures (the default there)",
    # FFCV's 16 to 32 epochs of ImageNet (small pictures first, linear ramps, no decay on batch norms) with airbench's
    # alternating flip. lr is 0.2 per 256 pictures.
    zero_init_residual=True,
    epochs=18,
    batch_size=512,
    lr=0.4,
    schedule="linear",
    warmup_epochs=2.0,
    nesterov=True,
    weight_decay=5e-4,
    decay_norm_and_bias=False,
    ema_epochs=0.5,
    label_smoothing=0.1,
    start_scale=0.625,
    flip="alternating",
)

BEST = Recipe(
    name="best",
    about="ResNet-34 as accurate as 20 minutes on a large GPU allow (not run yet): CutMix, mixup, TrivialAugment, 110"
    " epochs",
    zero_init_residual=True,
    epochs=110,
    batch_size=512,
    lr=0.4,
    schedule="cosine",
    warmup_epochs=5.0,
    nesterov=True,
    weight_decay=5e-4,
    decay_norm_and_bias=False,
    ema_epochs=2.0,
    label_smoothing=0.1,
    start_scale=0.75,
    trivial_augment=True,
    random_erasing=0.1,
    mix_share=0.8,
    mixup=0.2,
    cutmix=1.0,
    plain_epochs=10,
)

NANO = Recipe(
    name="nano",
    about="a network of 2.4 million weights that two CPU cores train in an hour and a half (the default there)",
    # The first stage, on the largest pictures, costs most and learns least: it is thin, and depth comes late.
    blocks=(1, 1, 1, 2),
    widths=(16, 64, 128, 256),
    zero_init_residual=True,
    epochs=24,
    batch_size=128,
    lr=0.2,
    schedule="linear",
    warmup_epochs=1.5,
    nesterov=True,
    weight_decay=5e-4,
    decay_norm_and_bias=False,
    ema_epochs=0.5,
    label_smoothing=0.1,
    start_scale=0.5,
    flip="alternating",
)

FINETUNE = Recipe(
    name="finetune",
    about="go on from a trained model (--init) on a few hundred to some thousand pictures of your own classes",
    # Ten times less for the layers that know pictures already than for the new classifier.
    epochs=15,
    batch_size=32,
    lr=0.05,
    schedule="cosine",
    warmup_epochs=1.0,
    backbone_lr=0.1,
    nesterov=True,
    weight_decay=5e-4,
    decay_norm_and_bias=False,
    ema_epochs=1.0,
    label_smoothing=0.1,
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
    precision="fp32",
)

RECIPES = {recipe.name: recipe for recipe in (SEED, CLASSIC, FAST, BEST, NANO, FINETUNE, DEMO)}


PARTS_OF_A_RUN = {"warmup_epochs", "ema_epochs", "plain_epochs"}
"""Fields that a run of fewer epochs has no room for."""


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
            raise UsageError(f"--set {assignment!r}: expected field=value", hint="valid fields: " + ", ".join(fields))
        if field not in fields:
            raise UsageError(f"recipe {recipe.name} has no field {field!r}", hint=suggest(field, fields))
        values[field] = _parse(text)
    given = {assignment.partition("=")[0] for assignment in assignments}
    for field in PARTS_OF_A_RUN - given if "epochs" in given else ():
        values[field] = _shrunk(getattr(recipe, field), recipe.epochs, values["epochs"])
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as exc:
        problem = exc.errors()[0]
        field = str(problem["loc"][0])
        before = getattr(recipe, field)
        example = ",".join(map(str, before)) if isinstance(before, tuple) else before
        message = f"recipe {recipe.name}: {field} cannot be {problem['input']!r}"
        choices = problem.get("ctx", {}).get("expected") if problem["type"] == "literal_error" else None
        hint = f"valid: {choices}" if choices else f"for example --set {field}={example}"
        raise UsageError(message, hint=hint) from exc


def _shrunk(part: float, epochs: int, fewer: object) -> float:
    """So many epochs of a run, where it has fewer: as they are while they fit, else in proportion."""
    if not isinstance(fewer, int) or not 0 < fewer <= part:
        return part
    return type(part)(part * fewer / epochs)


def _parse(text: str) -> object:
    """JSON where it is JSON (numbers, true, [1, 2]), a list where it has commas, else the text itself."""
    for candidate in (text, f"[{text}]" if "," in text else text):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return text
