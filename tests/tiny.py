"""Small things that many tests need by name: a recipe that trains in a second, pictures in folders, a trained run."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from tinyres import recipes
from tinyres.checkpoint import Checkpoint, load_state, load_weights, same_weights
from tinyres.cli import app
from tinyres.data import shapes
from tinyres.header import Origin
from tinyres.model import ResNet, build_model
from tinyres.progress import Silent
from tinyres.runs import Run
from tinyres.spec import ModelSpec, Preprocess
from tinyres.training.launch import Started

TINY = replace(recipes.DEMO, name="tiny", blocks=(1, 1), widths=(8, 16), image_size=16, epochs=3, batch_size=16)
"""Trains in a second or two on a few hundred pictures."""


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def warned(self) -> list[str]:
        """Of what."""
        return [line.removeprefix("warning: ") for line in self.lines if line.startswith("warning: ")]

    def log(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def require_same_end(first: Run, second: Run) -> None:
    """That two finished runs are equal bit for bit, but for the time they took."""
    states = [load_state(run.last) for run in (first, second)]
    for part in ("model", "average"):
        assert same_weights(*(state[part] for state in states))
    moments = [[entry["momentum_buffer"] for entry in state["optimizer"]["state"].values()] for state in states]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    for path in ("best", "final"):
        assert same_weights(*(load_weights(getattr(run, path)).tensors for run in (first, second)))
    untimed = [
        [replace(epoch, seconds=0.0, images_per_second=0.0) for epoch in run.history()] for run in (first, second)
    ]
    assert untimed[0] == untimed[1]


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


ORIGIN = Origin(run="r", recipe="seed", data_kind="shapes", data_fingerprint="f", epoch=1, step=2, selected_on="val")


def checkpoint_of(spec: ModelSpec, seed: int = 0) -> tuple[Checkpoint, ResNet]:
    """Random weights with batch norm statistics far from 0 and 1."""
    torch.manual_seed(seed)
    model = build_model(spec).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
    return Checkpoint(spec=spec, origin=ORIGIN, tensors=model.state_dict(), sha256="0" * 64), model


def small_spec(**fields: object) -> ModelSpec:
    values = {"blocks": (1, 2), "widths": (8, 12), "preprocess": Preprocess(image_size=16), **fields}
    return ModelSpec(class_names=("a", "b", "c"), class_ids=("1", "2", "3"), **values)


def outcome(cli: CliRunner, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    result = cli.invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr
