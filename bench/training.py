"""How training compares, on real pictures: `python -m tinyres.bench.training step|recipes|time|finetune ZIP`.

ZIP is Tiny ImageNet's archive; small parts of it are laid out in a temporary folder. Each prints one JSON text.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyres import launch
from tinyres.data.tiny_imagenet import WNIDS
from tinyres.progress import Silent
from tinyres.recipes import Recipe
from tinyres.training.train import Options, train

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tinyres.launch import Started

SMALL: dict[str, Any] = {"blocks": (1, 1, 1, 1), "widths": (16, 32, 64, 128)}
"""A network of 0.3 million weights, for comparisons of minutes."""
TEN = tuple(WNIDS[::20])


def few_classes(archive: Path, path: Path, wanted: Iterable[str], *, each: int = 500) -> Path:
    """Write some classes of Tiny ImageNet's zip as a zip of the same layout, with at most `each` training pictures."""
    kept = set(wanted)
    root = "tiny-imagenet-200"
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(path, "w") as small:
        lines = whole.read(f"{root}/val/val_annotations.txt").decode().splitlines()
        lines = [line for line in lines if line.split("\t")[1] in kept]
        small.writestr(f"{root}/val/val_annotations.txt", "\n".join(lines))
        small.writestr(f"{root}/words.txt", whole.read(f"{root}/words.txt"))
        names = [f"{root}/val/images/{line.split()[0]}" for line in lines]
        counts: dict[str, int] = {}
        for name in whole.namelist():
            folder = name.split("/")[2] if name.endswith(".JPEG") and "/train/" in name else ""
            if folder in kept and counts.get(folder, 0) < each:
                counts[folder] = counts.get(folder, 0) + 1
                names.append(name)
        for name in names:
            small.writestr(name, whole.read(name))
    return path


def run(data: Path, recipe: Recipe, folder: Path, *, seed: int = 0, start: launch.Start | None = None) -> Started:
    """Train to the end and return the run."""
    quiet = Silent()
    started = launch.new_run(
        str(data), recipe, runs=folder, seed=seed, start=start, cache_dir=folder / "cache", progress=quiet
    )
    train(started.run, started.config, started.dataset, options=Options(), start=started.start, progress=quiet)
    return started
