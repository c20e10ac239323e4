"""How fast training batches come, beside torchvision's ImageFolder: `python -m tinyres.bench.studies.loader ZIP`.

Both give the same float batches of the same pictures (random crop with padding 4, flip, normalise), for an epoch each,
in turns A B B A. The pictures are some classes of a Tiny ImageNet zip, laid out as files for ImageFolder.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from tinyres import environment, records
from tinyres.bench.schedule import interleaved
from tinyres.data.batches import TrainingBatches
from tinyres.data.dataset import Split, open_dataset
from tinyres.data.layout import read_layout
from tinyres.data.store import ZipStore
from tinyres.recipes import Recipe
from tinyres.spec import ModelSpec, Preprocess

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 40
NAMES = tuple(f"class {index}" for index in range(CLASSES))
BATCH = 128
WORKERS = 2
ROUNDS = 4


def main() -> None:
    """Measure and print JSON."""
    archive = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="tinyres-loader-") as folder:
        pictures = _lay_out(archive, Path(folder))
        split = open_dataset(str(archive)).train
        keep = split.labels < CLASSES
        ours = Split(split.images[: int(keep.sum())], split.labels[: int(keep.sum())])
        contenders: dict[str, Callable[[], int]] = {
            "torchvision": lambda: _theirs(Path(folder)),
            "tinyres": lambda: _ours(ours),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for epoch in contenders.values():
            epoch()  # once unmeasured: files and caches are then warm for both
        for name in interleaved(list(contenders), ROUNDS):
            started = time.perf_counter()
            if contenders[name]() != pictures:
                raise RuntimeError(f"{name} did not give every picture once")
            seconds[name].append(time.perf_counter() - started)
    rates = {name: [round(pictures / value) for value in values] for name, values in seconds.items()}
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "command": "python -m tinyres.bench.studies.loader tiny-imagenet-200.zip",
        "pictures": pictures,
        "batch": BATCH,
        "torchvision_workers": WORKERS,
        "images_per_second": rates,
        "ratio_of_medians": round(middle["torchvision"] / middle["tinyres"], 2),
        "environment": environment.capture(),
    }
    print(records.to_json(result))


def _lay_out(archive: Path, folder: Path) -> int:
    store = ZipStore(archive)
    items = [item for item in read_layout(store, place=str(archive)).train if item[1] < CLASSES]
    for number, (name, label) in enumerate(items):
        path = folder / f"{label:03}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(store.read(name))
    return len(items)


def _theirs(folder: Path) -> int:
    preprocess = Preprocess()
    steps = transforms.Compose(
        [
            transforms.RandomCrop(preprocess.image_size, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    loader = DataLoader(datasets.ImageFolder(folder, steps), batch_size=BATCH, shuffle=True, num_workers=WORKERS)
    return sum(len(labels) for _, labels in loader)


def _ours(split: Split) -> int:
    recipe = Recipe(name="loader", about="", epochs=1, batch_size=BATCH, lr=1.0, schedule="cosine")
    spec = ModelSpec(class_names=NAMES, class_ids=NAMES)
    batches = TrainingBatches(split, spec, recipe, seed=0, device=torch.device("cpu"))
    return sum(len(batches.batch(step).labels) for step in range(batches.per_epoch))


if __name__ == "__main__":
    main()
