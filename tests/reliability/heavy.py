"""A data set of many pictures through the cache: 300,000 of them unless `--pictures` says. `make soak` runs it.

Drawn noise in a zip, a small picture each: a tenth of them first, then all, then all with the builder killed half way
and another going on. Every process of a build counts: memory is what they hold for themselves (RssAnon, in all), since
pages of mapped files go when others need them. At the end training batches are read. It takes 2.2 GB of disk below
`--scratch`, which is emptied. Prints JSON; exit code 1 if a verdict fails.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import resident
from numpy.typing import NDArray
from PIL import Image

from tinyres import environment, records
from tinyres.data import cache, dataset
from tinyres.data.dataset import Dataset, open_dataset
from tinyres.data.sources import SplitName, find_source
from tinyres.progress import Silent
from tinyres.spec import Preprocess

SIDE = 32
CLASSES = 5000
LISTING_BYTES = 800
"""The builder may hold so much more for a picture while it lists them: zipfile's own objects take most of it."""
DECODING_BYTES = 150
"""And each worker: a name, and its place in the zip."""
SLOWER = 2.0
"""A picture of many may take so many times as long to list as one of a tenth of them: a square would take ten."""
AT_ONCE = 2
"""Chunks of a worker that a kill may cost: the one it decodes, and one whose end nobody has heard of."""
STEPS = 300
READING_MIB = 64
"""Batches may hold so much more after STEPS steps than after a tenth of them."""
ORPHANS_S = 20.0
"""Workers end by themselves within so much after their builder was killed."""


def noise(index: int) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def write_zip(path: Path, pictures: int, classes: int) -> None:
    """Every fourth a JPEG, the others PNG, dealt to the classes in turn."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(pictures):
            buffer = io.BytesIO()
            image = Image.fromarray(noise(index))
            if index % 4:
                image.save(buffer, "PNG", compress_level=0)
            else:
                image.save(buffer, "JPEG")
            kind = "png" if index % 4 else "jpg"
            archive.writestr(f"{index % classes:04}/{index:07}.{kind}", buffer.getvalue())


class Telling(Silent):
    """Prints how many pictures are decoded."""

    def __init__(self) -> None:
        self.done = 0

    @contextmanager
    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Iterator[Telling]:
        print(json.dumps({"waiting": total}), flush=True)
        yield self

    def advance(self, count: int = 1, note: str = "", left_s: float | None = None) -> None:
        self.done += count
        print(json.dumps({"done": self.done}), flush=True)


class Noted:
    """A source that writes down each picture it decodes, in a file for each process."""

    def __init__(self, source: Any, notes: Path) -> None:
        self.source, self.notes = source, notes
        self.kind, self.class_ids, self.class_names = source.kind, source.class_ids, source.class_names
        self.labels, self.name_of, self.fingerprint = source.labels, source.name_of, source.fingerprint

    def pixels(self, split: SplitName, index: int, preprocess: Preprocess) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = self.source.pixels(split, index, preprocess)
        with (self.notes / str(os.getpid())).open("a") as file:
            file.write(f"{split} {index}\n")
        return pixels


def build(data: Path, home: Path, notes: Path | None) -> None:
    """Open the data, which builds its cache, and print what is in it."""
    listed, usual = 0.0, find_source

    def source(*arguments: Any, **options: Any) -> Any:
        nonlocal listed
        began = time.perf_counter()
        found = usual(*arguments, **options)
        found.fingerprint()
        listed = time.perf_counter() - began
        return Noted(found, notes) if notes else found

    dataset.find_source = source  # type: ignore[attr-defined]
    began = time.perf_counter()
    opened = open_dataset(str(data), image_size=SIDE, cache_dir=home, progress=Telling())
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "listing_s": listed, **contents(opened)}), flush=True)


def contents(opened: Dataset) -> dict[str, Any]:
    digest = hashlib.sha256()
    for split in (opened.train, opened.val):
        for start in range(0, len(split), 10_000):
            digest.update(np.ascontiguousarray(split.images[start : start + 10_000]))
        digest.update(np.ascontiguousarray(split.labels))
    manifest = asdict(replace(opened.manifest, seconds=0.0))
    digest.update(json.dumps(manifest, default=str).encode())
    return {"sha256": digest.hexdigest(), "counts": opened.manifest.counts, "right": right(opened)}


def right(opened: Dataset) -> bool:
    """Whether the pictures, in their order of names, are those that were drawn; a few hundred are looked at."""
    by_class: dict[int, list[int]] = {}
    classes = len(opened.manifest.class_ids)
    pictures = sum(opened.manifest.counts.values())
    known = {noise(index).tobytes(): index for index in range(0, pictures, max(1, pictures // 300)) if index % 4}
    for split in (opened.train, opened.val):
        for start in range(0, len(split), 10_000):
            images = split.images[start : start + 10_000]
            for image, label in zip(images, split.labels[start : start + 10_000], strict=True):
                if (index := known.get(image.tobytes())) is not None:
                    by_class.setdefault(int(label), []).append(index)
    found = sorted(index for indices in by_class.values() for index in indices)
    return found == sorted(known.values()) and all(
        index % classes == label for label, indices in by_class.items() for index in indices
    )


def read(data: Path, home: Path) -> None:
    """The first training batches of a run, with this process's memory before, early and late."""
    import torch  # here, or every process that decodes would load it

    from tinyres import recipes
    from tinyres.data.batches import TrainingBatches
    from tinyres.training.launch import spec_for

    opened = open_dataset(str(data), image_size=SIDE, cache_dir=home)
    recipe = replace(recipes.NANO, image_size=SIDE)
    before = resident.held()
    batches = TrainingBatches(opened.train, spec_for(opened, recipe), recipe, seed=0, device=torch.device("cpu"))
    said: dict[str, object] = {"batch": recipe.batch_size, "before": before}
    began = time.perf_counter()
    steps = min(STEPS, batches.per_epoch)
    for step in range(steps):
        batch = batches.batch(step)
        if step == steps // 10:
            said["early"] = resident.held()
    said["late"] = resident.held()
    took = time.perf_counter() - began
    print(
        json.dumps(
            {**said, "mapped": resident.mapped(), "steps": steps, "seconds": took, "shape": list(batch.inputs.shape)}
        )
    )


@dataclass
class Watched:
    """A child, with the most memory that it and its own children held together."""

    process: subprocess.Popen[str]
    most: int = 0
    processes: int = 0


@contextmanager
def watched(*words: object) -> Iterator[Watched]:
    command = [sys.executable, __file__, *map(str, words)]
    ended = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        seen = Watched(process)

        def look() -> None:
            while not ended.wait(0.05):
                family = resident.family(process.pid)
                seen.most = max(seen.most, sum(resident.held(pid) for pid in family))
                seen.processes = max(seen.processes, len(family))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()


def lines(seen: Watched) -> Iterator[dict[str, Any]]:
    assert seen.process.stdout is not None
    for line in seen.process.stdout:
        yield json.loads(line)


def finished(*words: object) -> dict[str, Any]:
    """A child to its end: the last that it said, and its memory."""
    said: dict[str, Any] = {}
    with watched(*words) as seen:
        for line in lines(seen):
            said |= line
    if seen.process.returncode:
        raise SystemExit(f"{words[0]} ended with {seen.process.returncode}")
    return {**said, "held_mib": resident.mib(seen.most), "processes": seen.processes, "held_bytes": seen.most}


def killed(*words: object, at: int) -> dict[str, Any]:
    """A child that is killed when it has done `at` pictures, and what becomes of its own children."""
    with watched(*words) as seen:
        for line in lines(seen):
            if line.get("done", 0) >= at:
                break
        family = set(resident.family(seen.process.pid)) - {seen.process.pid}
        seen.process.send_signal(signal.SIGKILL)
        died = time.perf_counter()
        while (left := {pid for pid in family if resident.alive(pid)}) and time.perf_counter() - died < ORPHANS_S:
            time.sleep(0.05)
        took = time.perf_counter() - died
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    return {"at": line["done"], "children": len(family), "orphans": len(left), "orphans_s": round(took, 2)}


def repeated(notes: Path) -> tuple[int, int]:
    """Pictures that were decoded, and how many of them more than once."""
    names = [name for path in notes.iterdir() for name in path.read_text().splitlines()]
    return len(set(names)), len(names) - len(set(names))


def measure(pictures: int, scratch: Path, *, classes: int = CLASSES) -> dict[str, Any]:
    few, many = scratch / "few.zip", scratch / "many.zip"
    began = time.perf_counter()
    write_zip(few, pictures // 10, classes)
    write_zip(many, pictures, classes)
    drawn = time.perf_counter() - began

    small = finished("build", few, scratch / "small")
    shutil.rmtree(scratch / "small")
    large = finished("build", many, scratch / "large")
    reading = finished("read", many, scratch / "large")
    shutil.rmtree(scratch / "large")

    notes = scratch / "notes"
    notes.mkdir()
    death = killed("build", many, scratch / "killed", notes, at=pictures // 2)
    resumed = finished("build", many, scratch / "killed", notes)
    decoded, twice = repeated(notes)
    return {
        "pictures": pictures,
        "classes": classes,
        "image_size": SIDE,
        "zip_bytes": many.stat().st_size,
        "writing_the_zips_s": drawn,
        "small": small,
        "large": {**large, "pictures_per_second": pictures / large["seconds"]},
        "killed": {**death, "decoded": decoded, "decoded_twice": twice},
        "resumed": resumed,
        "reading": reading,
    }


def verdicts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each with what was measured, its limit, and whether it holds."""
    small, large, resumed, death, reading = (found[name] for name in ("small", "large", "resumed", "killed", "reading"))
    pictures = found["pictures"]
    more = (large["held_bytes"] - small["held_bytes"]) / (pictures - pictures // 10)
    slower = (large["listing_s"] / pictures) / (small["listing_s"] / (pictures // 10))
    in_flight = AT_ONCE * environment.usable_cores() * cache.CHUNK
    grown = reading["late"] - reading["early"]
    return {
        "every picture is in its class": judged(
            large["right"] and small["right"] and sum(large["counts"].values()) == pictures, True
        ),
        "memory for a picture, in all processes, bytes": judged(
            round(more), LISTING_BYTES + DECODING_BYTES * environment.usable_cores()
        ),
        "listing a picture of many, against one of a tenth": judged(round(slower, 2), SLOWER),
        "pictures decoded twice after a kill": judged(death["decoded_twice"], in_flight),
        "every picture was decoded": judged(death["decoded"] == pictures, True),
        "workers left by a killed builder": judged(death["orphans"], 0),
        "a killed and resumed build gives the same arrays": judged(resumed["sha256"] == large["sha256"], True),
        "memory that batches add, MiB": judged(resident.mib(grown), READING_MIB),
    }


def judged(measured: float | bool, limit: float | bool) -> dict[str, Any]:
    holds = measured is limit if isinstance(limit, bool) else measured <= limit
    return {"measured": measured, "limit": limit, "holds": holds}


def main() -> int:
    """Measure and print; 1 if a verdict fails."""
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]) if sys.argv[4:] else None)
        return 0
    if sys.argv[1:2] == ["read"]:
        read(Path(sys.argv[2]), Path(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=300_000, help=f"at least {20 * CLASSES:,}")
    parser.add_argument("--scratch", type=Path, help="a folder with room; made here and removed")
    asked = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tinyres-heavy-", dir=asked.scratch) as folder:
        found = measure(asked.pictures, Path(folder))
    said = verdicts(found)
    answer = {
        "command": f"python tests/reliability/heavy.py --pictures {asked.pictures}",
        "verdicts": said,
        "seconds": round(time.perf_counter() - began, 1),
        **found,
        "environment": environment.capture(),
    }
    print(records.to_json(answer))
    return int(not all(verdict["holds"] for verdict in said.values()))


if __name__ == "__main__":
    sys.exit(main())
