"""How training compares, on real pictures: `python -m tinyres.bench.studies.training step|recipes|time|finetune ZIP`.

ZIP is Tiny ImageNet's archive; small parts of it are laid out in a temporary folder. Each prints one JSON text.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from tinyres import environment, records
from tinyres.bench.schedule import interleaved
from tinyres.checkpoint import load_state
from tinyres.data.tiny_imagenet import WNIDS
from tinyres.evaluation import evaluate
from tinyres.model import build_model
from tinyres.progress import Silent
from tinyres.recipes import CLASSIC, FAST, FINETUNE, SEED, Recipe, override
from tinyres.run_data import open_run_data
from tinyres.schedules import learning_rate
from tinyres.spec import ModelSpec, Preprocess
from tinyres.training import launch
from tinyres.training.train import Options, train
from tinyres.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from tinyres.training.launch import Started

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


def compare_steps(archive: Path, folder: Path) -> dict[str, object]:
    """Pictures a second of ResNet-34, in turns: a plain loop, ours in float32, ours as it chooses on this machine."""
    data = few_classes(archive, folder / "ten.zip", TEN)
    pictures = _as_folder(archive, folder / "pictures", TEN)
    batch, steps = 64, 3
    names = tuple(f"class {number}" for number in range(200))
    spec = ModelSpec(class_names=names, class_ids=names, dropout=0.0)
    plain = PlainLoop(pictures, spec, replace(CLASSIC, batch_size=batch), seed=0)
    ours = {
        name: Trainer(started.run, started.config, started.dataset, progress=Silent())
        for name, started in {
            name: launch.new_run(
                str(data),
                override(CLASSIC, [f"batch_size={batch}", f"precision={precision}"]),
                runs=folder,
                cache_dir=folder / "cache",
                progress=Silent(),
            )
            for name, precision in (("tinyres fp32", "fp32"), ("tinyres", "auto"))
        }.items()
    }
    for trainer in ours.values():
        trainer.prepare()
    contenders: dict[str, Callable[[], object]] = {"plain loop": plain.step}
    contenders |= {name: trainer.train_step for name, trainer in ours.items()}
    for step in contenders.values():
        step()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for name in interleaved(list(contenders), 4):
        started_at = time.perf_counter()
        for _ in range(steps):
            contenders[name]()
        rates[name].append(batch * steps / (time.perf_counter() - started_at))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "network": "ResNet-34",
        "batch": batch,
        "steps_a_block": steps,
        "images_per_second": {name: [round(value, 2) for value in values] for name, values in rates.items()},
        "ratio_to_plain_loop": {name: round(value / middle["plain loop"], 2) for name, value in middle.items()},
        "precision": {name: trainer.precision for name, trainer in ours.items()},
    }


def compare_recipes(archive: Path, folder: Path, *, seeds: int = 3) -> dict[str, object]:
    """`seed` and `fast` at equal time on ten classes with a small network: accuracy of the last epoch, seed by seed."""
    data = few_classes(archive, folder / "ten.zip", TEN)
    small: dict[str, Any] = {**SMALL, "precision": "fp32"}
    recipes = {
        "seed": replace(SEED, **small, epochs=10),
        "fast": replace(FAST, **small, epochs=16, batch_size=64, lr=0.2),
    }
    return {"data": _ABOUT_TEN, **_train_all(data, folder, recipes, seeds=seeds)}


def compare_time(archive: Path, folder: Path, *, seeds: int = 3) -> dict[str, object]:
    """Time to the same accuracy on ten classes, in turns: a plain loop with a published recipe, and `fast`."""
    data = few_classes(archive, folder / "ten.zip", TEN)
    pictures = _as_folder(archive, folder / "pictures", TEN)
    theirs = replace(CLASSIC, **SMALL, epochs=10, warmup_epochs=1.0)
    ours = replace(FAST, **SMALL, epochs=14, batch_size=64, lr=0.2)
    rows: dict[str, list[dict[str, Any]]] = {"plain loop": [], "fast": []}
    for seed in range(seeds):
        rows["plain loop"].append(_train_plainly(data, pictures, theirs, folder, seed=seed))
        rows["fast"].append(_train(data, ours, folder, seed=seed))
        _tell(str({name: found[-1] for name, found in rows.items()}))
    found = _means({"plain loop": theirs, "fast": ours}, rows)
    seconds, accuracy = found["mean_seconds"], found["mean_accuracy"]
    return {
        "data": _ABOUT_TEN,
        **found,
        "times_sooner": round(seconds["plain loop"] / seconds["fast"], 2),
        "not_less_accurate": accuracy["fast"] >= accuracy["plain loop"],
    }


def compare_finetuning(archive: Path, folder: Path, *, seeds: int = 3) -> dict[str, object]:
    """300 pictures of ten classes: from scratch, and from a network that learned forty other classes."""
    few = few_classes(archive, folder / "few.zip", TEN, each=30)
    others = [wnid for index, wnid in enumerate(WNIDS) if index % 20 and index % 5 == 3]
    many = few_classes(archive, folder / "many.zip", others, each=250)
    small: dict[str, Any] = {**SMALL, "precision": "fp32"}
    before = run(many, replace(FAST, **small, epochs=10, batch_size=64, lr=0.2), folder)
    start = launch.find_start(str(before.run.best), folder)
    finetune = replace(FINETUNE, **small)
    recipes = {
        "from scratch, finetune's length": replace(finetune, backbone_lr=1.0, lr=0.05),
        "from scratch, eight times as long": replace(finetune, backbone_lr=1.0, lr=0.05, epochs=8 * finetune.epochs),
        "finetune": finetune,
    }
    starts = {"finetune": start}
    return {
        "data": "Tiny ImageNet, every twentieth class, 30 training pictures each; judged on all 500 of val",
        "started_from": {"classes": len(others), "pictures": 250 * len(others), "accuracy": _last(before)},
        **_train_all(few, folder, recipes, seeds=seeds, starts=starts),
    }


_ABOUT_TEN = "Tiny ImageNet, every twentieth class: 5,000 training pictures, judged on all 500 of val"


class PlainLoop:
    """Training as torchvision's reference scripts do it: ImageFolder, DataLoader, float32, NCHW."""

    def __init__(self, pictures: Path, spec: ModelSpec, recipe: Recipe, *, seed: int) -> None:
        torch.manual_seed(seed)
        self.model, self._recipe, self._step = build_model(spec).train(), recipe, 0
        preprocess = spec.preprocess
        steps = transforms.Compose(
            [
                transforms.RandomCrop(preprocess.image_size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(preprocess.mean, preprocess.std),
            ]
        )
        self._loader = DataLoader(
            datasets.ImageFolder(str(pictures), steps), batch_size=recipe.batch_size, shuffle=True, num_workers=2
        )
        self.per_epoch = len(self._loader)
        self._optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self._batches = self._endless()

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self._loader

    def step(self) -> None:
        """One batch."""
        inputs, labels = next(self._batches)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._recipe, self._step, self.per_epoch)
        loss = functional.cross_entropy(self.model(inputs), labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._step += 1


def _train_plainly(data: Path, pictures: Path, recipe: Recipe, folder: Path, *, seed: int) -> dict[str, Any]:
    """Train a plain loop to the end and judge it; the clock runs for its steps alone, as for ours."""
    dataset = open_run_data(
        str(data), image_size=64, judged_on="val", seed=seed, cache_dir=folder / "cache", progress=Silent()
    )
    loop = PlainLoop(pictures, launch.spec_for(dataset, recipe), recipe, seed=seed)
    started_at = time.perf_counter()
    for _ in range(recipe.epochs * loop.per_epoch):
        loop.step()
    seconds = time.perf_counter() - started_at
    accuracy = evaluate(loop.model, dataset.val, Preprocess()).accuracy.top1
    return {"seed": seed, "seconds": round(seconds, 1), "accuracy": accuracy, "precision": "fp32"}


def _train(data: Path, recipe: Recipe, folder: Path, *, seed: int, start: launch.Start | None = None) -> dict[str, Any]:
    started = run(data, recipe, folder, seed=seed, start=start)
    seconds = sum(epoch.seconds for epoch in started.run.history())
    precision = load_state(started.run.last)["compute"]["precision"]
    return {"seed": seed, "seconds": round(seconds, 1), "accuracy": _last(started), "precision": precision}


def _train_all(
    data: Path,
    folder: Path,
    recipes: dict[str, Recipe],
    *,
    seeds: int,
    starts: dict[str, launch.Start] | None = None,
) -> dict[str, Any]:
    """Train every recipe with every seed, in turns."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in recipes}
    for seed in range(seeds):
        for name, recipe in recipes.items():
            rows[name].append(_train(data, recipe, folder, seed=seed, start=(starts or {}).get(name)))
            _tell(f"{name}: {rows[name][-1]}")
    return _means(recipes, rows)


def _means(recipes: dict[str, Recipe], rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    accuracies = {name: [row["accuracy"] for row in found] for name, found in rows.items()}
    return {
        "recipes": recipes,
        "runs": rows,
        "mean_accuracy": {name: round(statistics.mean(values), 4) for name, values in accuracies.items()},
        "sd_accuracy": {name: round(statistics.stdev(values), 4) for name, values in accuracies.items()},
        "mean_seconds": {
            name: round(statistics.mean(row["seconds"] for row in found), 1) for name, found in rows.items()
        },
    }


def _last(started: Started) -> float:
    return started.run.history()[-1].val_acc


def _as_folder(archive: Path, folder: Path, wanted: Iterable[str]) -> Path:
    """Some classes' training pictures as ImageFolder reads them."""
    kept = set(wanted)
    with zipfile.ZipFile(archive) as whole:
        for name in whole.namelist():
            if "/train/" in name and name.endswith(".JPEG") and name.split("/")[2] in kept:
                path = folder / name.split("/")[2] / name.rsplit("/", 1)[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(whole.read(name))
    return folder


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


COMPARISONS = {
    "step": compare_steps,
    "recipes": compare_recipes,
    "time": compare_time,
    "finetune": compare_finetuning,
}


def main() -> None:
    """Compare and print JSON."""
    name, archive = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="tinyres-training-") as folder:
        found = COMPARISONS[name](archive, Path(folder))
    command = f"python -m tinyres.bench.studies.training {name} tiny-imagenet-200.zip"
    print(records.to_json({"command": command, **found, "environment": environment.capture()}))


if __name__ == "__main__":
    main()
