"""Open a data set by the words after `--data`: find the source, build or reuse its cache, map the arrays.

Nothing here decodes or augments.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyres import records
from tinyres.data import cache, download, tiny_imagenet
from tinyres.data.cache import Manifest
from tinyres.data.sources import PictureTree, find_source
from tinyres.errors import DataError
from tinyres.files import cache_root
from tinyres.harmless import shown
from tinyres.progress import Silent
from tinyres.spec import Preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.data.sources import Source
    from tinyres.progress import Progress

HOLDOUT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures and their classes."""

    images: NDArray[np.uint8]
    """(N, S, S, 3) RGB; memory-mapped, read-only."""
    labels: NDArray[np.int64]
    """(N,)"""

    def __len__(self) -> int:
        return len(self.labels)

    def spread(self, count: int) -> Split:
        """At most `count` pictures at even distances: the same ones every time, over all classes of a sorted split."""
        if count >= len(self):
            return self
        index = (np.arange(count) * len(self)) // count
        return Split(images=self.images[index], labels=self.labels[index])


@dataclass(frozen=True, slots=True)
class Dataset:
    """A decoded data set."""

    name: str
    """What the user called it."""
    manifest: Manifest
    train: Split
    val: Split
    judged_on: str = "val"
    """val (the data's own) or holdout (cut from the training pictures)."""

    @property
    def drawn(self) -> bool:
        """Whether it is the embedded shapes, which every result must say."""
        return self.manifest.kind == "shapes"


def open_dataset(
    data: str, *, image_size: int = 64, cache_dir: Path | None = None, progress: Progress | None = None
) -> Dataset:
    """Open `data` (tiny-imagenet, shapes, a zip or a folder), building its cache first if need be.

    Errors: DataError, StorageError; UsageError for an image size out of range.
    """
    progress = progress or Silent()
    root = cache_root(cache_dir)
    if data == "tiny-imagenet" and image_size == 64 and (known := _official_cache(root)).is_dir():
        return read_cache(known, name=data)
    return _build(data, _find(data, root, progress), Preprocess(image_size=image_size), root, progress)


def reopen_dataset(
    data: str,
    kind: str,
    fingerprint: str,
    *,
    image_size: int,
    cache_dir: Path | None = None,
    progress: Progress,
) -> Dataset | None:
    """The pictures that have this kind and fingerprint: those of `data`, or where it is gone or has changed its cache.

    None if neither has them. Errors: DataError if `data` is gone and there is no cache, StorageError.
    """
    root = cache_root(cache_dir)
    if data == "tiny-imagenet" and (kept := find_cached(kind, fingerprint, root, name=data)):
        return kept
    preprocess = Preprocess(image_size=image_size)
    try:
        source = _find(data, root, progress)
    except DataError as exc:
        kept = find_cached(kind, fingerprint, root, name=data)
        if kept is None:
            raise
        changed = str(exc)
    else:
        if cache.fingerprint_of(source, preprocess) == fingerprint:
            return _build(data, source, preprocess, root, progress)
        kept = find_cached(kind, fingerprint, root, name=data)
        changed = f"--data {data} has changed"
    if kept is not None:
        progress.warn(f"{changed}; its pictures of before are taken, from the cache")
    return kept


def find_cached(kind: str, fingerprint: str, root: Path, *, name: str) -> Dataset | None:
    """What was decoded of data of that kind and fingerprint, if it is below `root`. Errors: as `read_cache`."""
    folder = root / cache.folder_name(kind, fingerprint)
    if not (folder / "manifest.json").is_file():
        return None
    found = read_cache(folder, name=name)
    return found if found.manifest.fingerprint == fingerprint else None


def count_seen(judged: Split, trained: Split) -> int:
    """How many pictures of `judged` are in `trained` too, by their pixels."""
    known = {hashlib.blake2b(image).digest() for image in trained.images}
    return sum(hashlib.blake2b(image).digest() in known for image in judged.images)


def _find(data: str, root: Path, progress: Progress) -> Source:
    archive = download.fetch_tiny_imagenet(root, progress) if data == "tiny-imagenet" else None
    source = find_source(data, archive=archive)
    for note in source.notes if isinstance(source, PictureTree) else ():
        progress.warn(note)
    return source


def _build(data: str, source: Source, preprocess: Preprocess, root: Path, progress: Progress) -> Dataset:
    return read_cache(cache.build(source, preprocess, root, progress), name=data)


def is_at_hand(root: Path) -> bool:
    """Whether Tiny ImageNet below `root` needs no download: its archive is there, or a cache of its pictures."""
    return download.is_downloaded(root) or _official_cache(root).is_dir()


def _official_cache(root: Path) -> Path:
    return root / cache.folder_name("tiny-imagenet", tiny_imagenet.FINGERPRINT)


def read_cache(folder: Path, *, name: str) -> Dataset:
    """Map the arrays of a finished cache. Errors: DataError if they do not fit its manifest."""
    manifest = records.load(Manifest, folder / "manifest.json", error=DataError)
    mend = f"remove {folder} and run again"
    splits = {}
    for split in ("train", "val"):
        try:
            images = np.load(folder / f"{split}.images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / f"{split}.labels.npy", allow_pickle=False)
        # The header of a damaged array is taken for Python and for lengths: it raises whatever its bytes come to.
        except Exception as exc:
            reason = str(exc).partition("\n")[0] or type(exc).__name__
            raise DataError(f"the cache {folder} is damaged: {reason}", hint=mend) from exc
        count, size = manifest.counts.get(split), manifest.image_size
        fits = images.shape == (count, size, size, 3) and images.dtype == np.uint8 and labels.shape == (count,)
        if not fits or labels.dtype != np.int64 or not ((labels >= 0) & (labels < len(manifest.class_ids))).all():
            raise DataError(f"the cache {folder} does not fit its manifest", hint=mend)
        splits[split] = Split(images=images, labels=labels)
    return Dataset(name=name, manifest=manifest, train=splits["train"], val=splits["val"])


def describe(dataset: Dataset) -> str:
    """How many pictures there are, and how evenly they lie in the classes."""
    manifest = dataset.manifest
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    side, classes = manifest.image_size, len(manifest.class_ids)
    lines = [
        f"{dataset.name}: {counts} pictures of {classes} classes, {side}x{side}; {len(manifest.unreadable)} unreadable"
    ]
    if manifest.kind == "folders-split":
        lines.append("val: about a tenth, held back by name, since there is no folder val/")
    for split, part in (("train", dataset.train), ("val", dataset.val)):
        each = np.bincount(part.labels, minlength=classes)
        least, most = int(each.argmin()), int(each.argmax())
        if each[least] < each[most]:
            few, many = (shown(manifest.class_names[index]) for index in (least, most))
            lines.append(f"{split}: {each[least]:,} pictures ({few}) to {each[most]:,} ({many}) a class")
    return "\n".join(lines)


def with_holdout(dataset: Dataset, *, seed: int) -> Dataset:
    """Judge on a random tenth of the training pictures instead of val, as the seed did. Copies the pictures once."""
    order = np.random.default_rng((seed, len(dataset.train))).permutation(len(dataset.train))
    held = max(1, round(len(order) * HOLDOUT_SHARE))
    parts = [np.sort(order[held:]), np.sort(order[:held])]
    train, val = (Split(dataset.train.images[index], dataset.train.labels[index]) for index in parts)
    return replace(dataset, train=train, val=val, judged_on="holdout")
