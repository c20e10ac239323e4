"""Every picture decoded once into memory-mapped uint8 arrays, on all cores, resumable and atomic.

A cache is a folder `<kind>-<key>/` of .npy files with a manifest; it appears under that name only when it is whole. The
key covers the source's content and the decoding. Pictures that cannot be read are listed, counted and left out.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from tinyres import records
from tinyres.data.sources import SPLITS, Source, SplitName, read_pixels
from tinyres.data.statistics import ChannelSums, Statistics
from tinyres.environment import usable_cores
from tinyres.errors import DataError
from tinyres.files import remove, storage_errors, sync_folder, write_array, write_bytes
from tinyres.spec import Preprocess
from tinyres.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tinyres.progress import Progress

SCHEMA = 1
CHUNK = 500
"""Pictures a worker decodes between two reports: small enough for a lively bar, large enough to pay for the call."""
UNREADABLE = "open one of its pictures: files may be cut short, or of a format that is not read"
_IN_PROCESS_BELOW = 1000
"""Fewer pictures than this are decoded here: starting workers would take longer."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A picture that could not be decoded."""

    split: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a cache holds."""

    schema: int
    kind: str
    """tiny-imagenet, folders, folders-split or shapes."""
    fingerprint: str
    """SHA-256 of the source's content, image size and decoding: equal fingerprints mean equal arrays."""
    image_size: int
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    counts: dict[str, int]
    """Pictures kept, by split."""
    unreadable: tuple[Unreadable, ...]
    statistics: Statistics
    """Of the training pictures."""
    seconds: float
    """What the build took, over all its attempts but the interrupted parts."""


def fingerprint_of(source: Source, preprocess: Preprocess) -> str:
    """The cache key of `source` under `preprocess` (mean and std are applied later and do not count)."""
    decoding = (SCHEMA, preprocess.image_size, preprocess.color, preprocess.resize, preprocess.crop)
    return hashlib.sha256(f"{source.fingerprint()}{decoding}".encode()).hexdigest()


def folder_name(kind: str, fingerprint: str) -> str:
    """Of a finished cache."""
    return f"{kind}-{fingerprint[:16]}"


def build(source: Source, preprocess: Preprocess, root: Path, progress: Progress) -> Path:
    """Return the cache folder of `source` below `root`, building what is missing of it.

    Errors: DataError if a class has no readable picture; StorageError.
    """
    fingerprint = fingerprint_of(source, preprocess)
    folder = root / folder_name(source.kind, fingerprint)
    if (folder / "manifest.json").exists():
        return folder
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker runs its parent's script again if that has no guard, and would wait for the parent's lock for ever.
        raise DataError(
            "a data set is opened while Python starts a worker", hint="put it under `if __name__ == '__main__':`"
        )
    with storage_errors(folder):
        root.mkdir(parents=True, exist_ok=True)
        # One builder at a time; the lock dies with its process, and the next takes over what was done.
        with FileLock(root / f".{folder.name}.lock"):
            if not (folder / "manifest.json").exists():
                _build(source, preprocess, folder, fingerprint, progress)
    return folder


def _build(source: Source, preprocess: Preprocess, folder: Path, fingerprint: str, progress: Progress) -> None:
    partial = folder.with_name(folder.name + ".partial")
    labels = {split: source.labels(split) for split in SPLITS}
    journal = partial / "done.jsonl"
    done = _resumable(partial, labels)
    if not done:
        remove(partial)
        partial.mkdir()
        for split in SPLITS:
            size = preprocess.image_size
            _allocate(partial / f"{split}.images.npy", (len(labels[split]), size, size, 3))
    _cut_torn_line(journal)
    waiting = [chunk for chunk in _chunks(labels) if (chunk.split, chunk.start) not in done]
    total = sum(chunk.stop - chunk.start for chunk in waiting)
    with progress.task("decoding pictures", total, "pictures") as task, journal.open("a", encoding="utf-8") as log:
        for result in _decode_all(source, preprocess, partial, waiting):
            # A line is written whole and only after its pixels: a torn last line is ignored, its chunk done again.
            log.write(json.dumps(asdict(result)) + "\n")
            log.flush()
            done[result.split, result.start] = result
            task.advance(result.stop - result.start)
    _finish(source, preprocess, partial, folder, fingerprint, labels, list(done.values()), progress)


@dataclass(frozen=True, slots=True)
class _Chunk:
    split: SplitName
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Done:
    split: SplitName
    start: int
    stop: int
    unreadable: list[tuple[int, str]]
    sums: ChannelSums
    seconds: float


def _chunks(labels: dict[SplitName, NDArray[np.int64]]) -> Iterator[_Chunk]:
    for split in SPLITS:
        for start in range(0, len(labels[split]), CHUNK):
            yield _Chunk(split, start, min(start + CHUNK, len(labels[split])))


def _resumable(partial: Path, labels: dict[SplitName, NDArray[np.int64]]) -> dict[tuple[str, int], _Done]:
    """What an unfinished build can go on from: its journal, if the arrays that it speaks of are there."""
    try:
        done = _read_journal(partial / "done.jsonl")
        found = {split: len(np.load(partial / f"{split}.images.npy", mmap_mode="r")) for split in SPLITS}
    except Exception:  # noqa: BLE001 - absent, or damaged, of which NumPy raises much: begun anew
        return {}
    stops: dict[tuple[str, int], int] = {(chunk.split, chunk.start): chunk.stop for chunk in _chunks(labels)}
    done = {place: result for place, result in done.items() if stops.get(place) == result.stop}
    whole = len(done) == len(stops)  # the gaps of unreadable pictures are closed only after the last chunk
    fits = all(found[split] == len(labels[split]) or (whole and found[split] < len(labels[split])) for split in SPLITS)
    return done if fits else {}


def _read_journal(path: Path) -> dict[tuple[str, int], _Done]:
    done: dict[tuple[str, int], _Done] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                result = records.from_json(_Done, line, source=str(path), error=DataError)
                done[result.split, result.start] = result
    return done


def _cut_torn_line(path: Path) -> None:
    """Take off what a killed process began to write, so that the next line starts on its own."""
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_bytes(path, whole)


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    _reserve(path)


def _reserve(path: Path) -> None:
    """Give a sparse file its blocks: a map that meets a full disk ends the process, this raises an error instead."""
    size = path.stat().st_size
    with path.open("rb+") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
            return
        file.seek(0, os.SEEK_SET)
        header = file.read(min(size, 4096))
        file.seek(0, os.SEEK_SET)
        file.write(header)
        for start in range(len(header), size, len(_ZEROS)):
            file.write(_ZEROS[: min(len(_ZEROS), size - start)])


_ZEROS = bytes(1 << 20)


def _decode_all(source: Source, preprocess: Preprocess, partial: Path, chunks: list[_Chunk]) -> Iterator[_Done]:
    pictures = sum(chunk.stop - chunk.start for chunk in chunks)
    if pictures < _IN_PROCESS_BELOW or usable_cores() == 1:
        for chunk in chunks:
            yield _decode(source, preprocess, partial, chunk)
        return
    # By a file: Python waits for ever for a starting worker that died before it took more than a pipe holds.
    job = partial / "job.pickle"
    job.write_bytes(pickle.dumps((source, preprocess, partial)))
    # spawn, not fork: the parent may hold threads (progress bar, torch) that a fork would copy in a broken state.
    pool = concurrent.futures.ProcessPoolExecutor(
        usable_cores(),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(job,),
    )
    with pool:
        try:
            for future in concurrent.futures.as_completed([pool.submit(_decode_here, chunk) for chunk in chunks]):
                yield future.result()
        except BrokenProcessPool as exc:
            raise DataError(
                "a process that decodes pictures ended on its own",
                hint="is memory short? In a script of yours, call it under `if __name__ == '__main__':`",
            ) from exc
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker: tuple[Source, Preprocess, Path] | None = None


def _start_worker(job: Path) -> None:
    global _worker  # noqa: PLW0603 - a pool's initializer can hand state to its calls in no other way
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = pickle.loads(job.read_bytes())  # noqa: S301 - written by the parent, a moment ago


def _end_with_parent() -> None:
    """A pool's processes would wait for work for ever, each with its memory, if the parent was killed."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _decode_here(chunk: _Chunk) -> _Done:
    if _worker is None:
        raise RuntimeError("a worker was called before it was started")
    return _decode(*_worker, chunk)


def _decode(source: Source, preprocess: Preprocess, partial: Path, chunk: _Chunk) -> _Done:
    started = time.perf_counter()
    images = np.load(partial / f"{chunk.split}.images.npy", mmap_mode="r+")
    unreadable = []
    for index in range(chunk.start, chunk.stop):
        pixels, reason = read_pixels(source, chunk.split, index, preprocess)
        if pixels is None:
            unreadable.append((index, reason))
        else:
            images[index] = pixels
    images.flush()  # before the journal says that they are there
    bad = {index for index, _ in unreadable}
    kept = [index for index in range(chunk.start, chunk.stop) if index not in bad]
    sums = ChannelSums.of(images[kept] if bad else images[chunk.start : chunk.stop])
    return _Done(chunk.split, chunk.start, chunk.stop, unreadable, sums, time.perf_counter() - started)


def _finish(
    source: Source,
    preprocess: Preprocess,
    partial: Path,
    folder: Path,
    fingerprint: str,
    labels: dict[SplitName, NDArray[np.int64]],
    done: list[_Done],
    progress: Progress,
) -> None:
    unreadable = []
    for split in SPLITS:
        bad = sorted(pair for result in done if result.split == split for pair in result.unreadable)
        unreadable += [Unreadable(split, source.name_of(split, index), reason) for index, reason in bad]
        labels[split] = _keep(partial, split, labels[split], [index for index, _ in bad])
    for picture in unreadable[:5]:
        progress.warn(f"left out: {picture.reason}")
    if unreadable:
        listed = f"listed in {folder / 'manifest.json'}"
        progress.warn(f"{counted(len(unreadable), 'picture')} cannot be read, {listed}")
    missing = sorted(set(range(len(source.class_ids))) - set(labels["train"].tolist()))
    if missing:
        remove(partial)
        raise DataError(f"class {source.class_ids[missing[0]]!r} has no readable training picture", hint=UNREADABLE)
    if not len(labels["val"]):
        remove(partial)
        raise DataError("no validation picture can be read", hint=UNREADABLE)
    sums = ChannelSums.total([result.sums for result in done if result.split == "train"])
    manifest = Manifest(
        schema=SCHEMA,
        kind=source.kind,
        fingerprint=fingerprint,
        image_size=preprocess.image_size,
        class_ids=source.class_ids,
        class_names=source.class_names,
        counts={split: len(labels[split]) for split in SPLITS},
        unreadable=tuple(unreadable),
        statistics=sums.statistics(),
        seconds=round(sum(result.seconds for result in done), 3),
    )
    records.save(partial / "manifest.json", manifest)
    remove(folder)  # it has no manifest, so it is no cache
    partial.replace(folder)
    sync_folder(folder.parent)
    with contextlib.suppress(OSError):  # without the journal, what was cut off before this could not be told from done
        for name in ("done.jsonl", "job.pickle"):
            (folder / name).unlink(missing_ok=True)


def _keep(partial: Path, split: SplitName, labels: NDArray[np.int64], bad: list[int]) -> NDArray[np.int64]:
    """Write the labels of `split`, and close the gaps that unreadable pictures left in its images."""
    kept = np.setdiff1d(np.arange(len(labels)), bad)
    path = partial / f"{split}.images.npy"
    images = np.load(path, mmap_mode="r")
    if len(images) != len(kept):  # a build that was cut off after this closes no gap twice
        temporary = path.with_suffix(".tmp")
        closed = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(kept), *images.shape[1:]))
        _reserve(temporary)
        for start in range(0, len(kept), CHUNK):
            closed[start : start + CHUNK] = images[kept[start : start + CHUNK]]
        closed.flush()
        del images, closed  # Windows replaces no file that is mapped
        temporary.replace(path)
    labels = labels[kept]
    write_array(partial / f"{split}.labels.npy", labels)
    return labels
