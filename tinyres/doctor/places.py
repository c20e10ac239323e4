"""The disk: room in the cache, what broken-off work left behind, and whether runs can be written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyres.doctor.finding import Finding
from tinyres.files import is_temporary
from tinyres.units import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NEED_FREE_BYTES = 4 * 2**30
"""Tiny ImageNet's archive and cache take 1.6 GB, a ResNet-34 run 0.3 GB."""
NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "lustre", "gpfs", "glusterfs", "fuse.sshfs", "fuse.s3fs")
"""How the names of file systems on other machines begin."""
OLD_S = 3600.0
"""A temporary file that nobody wrote for so long is no longer being written."""
ELSEWHERE = "--cache or TINYRES_CACHE names another folder"


def cache(folder: Path) -> list[Finding]:
    """Whether the cache can be written, has room and is quick to map."""
    home = _nearest(folder)
    if not home.is_dir() or not os.access(home, os.W_OK):
        return [Finding("cache", "problem", f"{folder} cannot be written", ELSEWHERE)]
    free = shutil.disk_usage(home).free
    detail = f"{size(free)} free at {folder}"
    found = [Finding("cache", "ok", detail)]
    if free < NEED_FREE_BYTES:
        need = f"{detail}; Tiny ImageNet and a run take {size(NEED_FREE_BYTES)}"
        found = [Finding("cache", "problem", need, f"make room: {ELSEWHERE}")]
    if (kind := _file_system(home)) and kind.startswith(NETWORK):
        slow = f"{folder} is on a network file system ({kind}): training waits for its pages, and locks may not hold"
        found.append(Finding("cache", "note", slow, f"use a local disk: {ELSEWHERE}"))
    return found


def runs(folder: Path) -> Finding:
    """Whether a run can be made in `folder`."""
    home = _nearest(folder)
    if not home.is_dir() or not os.access(home, os.W_OK):
        mend = "--runs names another folder, or run tinyres in one that you may write"
        return Finding("runs", "problem", f"{folder} cannot be written", mend)
    return Finding("runs", "ok", f"{folder} can be written")


def leftovers(cache: Path, runs: Path) -> list[Finding]:
    """What killed or outdated work left in the cache and in runs, with its size and what removes it."""
    found = [*_unfinished(cache), *_stale(cache, runs)]
    old = time.time() - OLD_S
    temporary = [path for place in (cache, runs) for path in _temporary(place) if _written(path) < old]
    if temporary:
        folders = sum(path.is_dir() for path in temporary)
        counts = ((len(temporary) - folders, "temporary file"), (folders, "temporary folder"))
        what = " and ".join(counted(count, noun) for count, noun in counts if count)
        detail = f"{what} of killed processes, {size(sum(map(_bytes, temporary)))}"
        found.append(Finding("leftovers", "note", detail, _remove(temporary)))
    return found or [Finding("leftovers", "ok", "none")]


def _unfinished(cache: Path) -> Iterator[Finding]:
    """Builds and downloads that were broken off; those going on right now are named as such."""
    for path in sorted([*cache.glob("*.partial"), *cache.glob("downloads/*.part")]):
        lock = path.with_name(f".{path.stem}.lock")
        what = "an unfinished download" if path.suffix == ".part" else "an unfinished build of a cache"
        if _held(lock):
            yield Finding("leftovers", "ok", f"{path.name}, {size(_bytes(path))}: {what}, going on in another process")
        else:
            detail = f"{path.name}, {size(_bytes(path))}: {what}; the command that began it goes on with it"
            yield Finding("leftovers", "note", detail, f"{_remove([path])} begins anew")


def _stale(cache: Path, runs: Path) -> Iterator[Finding]:
    """Caches that no new training will open."""
    gone = _data_that_is_gone(runs)
    for path in sorted(cache.glob("*/manifest.json")):
        from tinyres.data.cache import SCHEMA

        manifest = _read(path)
        if manifest.get("schema") != SCHEMA:
            reason = "made by another version of tinyres, and not used by this one"
        elif data := gone.get(str(manifest.get("fingerprint"))):
            reason = f"of {data}, which is gone: no other pictures are left of runs trained on it"
        else:
            continue
        folder = path.parent
        detail = f"{folder.name}, {size(_bytes(folder))}: a cache {reason}"
        yield Finding("leftovers", "note", detail, _remove([folder]))


def _data_that_is_gone(runs: Path) -> dict[str, str]:
    """Fingerprint -> the folder or zip that a run was trained on and that is no longer there, nor a copy of it."""
    gone, there = {}, set()
    for path in runs.glob("*/config.json"):
        config = _read(path)
        data, fingerprint = str(config.get("data", "")), str(config.get("data_fingerprint"))
        if config.get("data_kind") in ("folders", "folders-split") and not _exists(Path(data)):
            gone[fingerprint] = data
        else:
            there.add(fingerprint)
    return {fingerprint: data for fingerprint, data in gone.items() if fingerprint not in there}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a place that may not be looked at
        return True


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if it is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _held(lock: Path) -> bool:
    """Whether another process holds `lock`. Not asked through filelock, which removes the file afterwards."""
    try:
        import fcntl
    except ImportError:  # where the file lives as long as the lock
        return lock.is_file()
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _written(path: Path) -> float:
    """When a file, or anything in a folder, was last written; of what is no longer there, right now."""
    try:
        return max([path.lstat().st_mtime, *(file.lstat().st_mtime for file in _files(path))])
    except OSError:
        return time.time()


def _temporary(folder: Path) -> Iterator[Path]:
    """What is not whole yet below `folder`: a folder as one, whatever it holds."""
    for place, folders, names in _walk(folder):
        yield from (Path(place, name) for name in sorted(folders + names) if is_temporary(Path(name)))
        folders[:] = [name for name in folders if not is_temporary(Path(name))]


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in _walk(folder):
        yield from (Path(place, name) for name in names)


def _walk(folder: Path, depth: int = 3) -> Iterator[tuple[str, list[str], list[str]]]:
    """`folder` and the folders below it, as deep as tinyres makes any."""
    base = len(folder.parts)
    for place, folders, names in os.walk(folder):
        if len(Path(place).parts) - base >= depth:
            folders.clear()
        yield place, folders, names


def _bytes(path: Path) -> int:
    """Of a file, or of all in a folder."""
    try:
        return sum(map(_bytes, _files(path))) if path.is_dir() else path.stat().st_size
    except OSError:
        return 0


def _nearest(folder: Path) -> Path:
    """`folder`, or what would hold it."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _file_system(folder: Path) -> str | None:
    """The kind of file system under `folder`, where the system tells cheaply."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    mounts = {fields[1].replace("\\040", " "): fields[2] for line in lines if len(fields := line.split()) > 2}
    real = folder.resolve()
    return next((mounts[str(place)] for place in (real, *real.parents) if str(place) in mounts), None)


def _remove(paths: Iterable[Path]) -> str:
    return "rm -r " + " ".join(shlex.quote(str(path)) for path in paths)
