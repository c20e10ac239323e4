"""Which picture belongs to which class and split, read from the names alone.

It knows the official Tiny ImageNet layout (val through `val_annotations.txt`), `train/` and `val/` with a folder per
class, and a plain folder per class, which it splits by the pictures' names. It opens no picture.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tinyres.errors import DataError
from tinyres.harmless import acts, shown
from tinyres.pictures import UNREAD_SUFFIXES, is_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyres.data.store import Store

VAL_FOLDERS = ("val", "valid", "validation")
VAL_SHARE = 0.1
"""Of the pictures, where the data brings no split of its own."""

DEEPEST = 32
"""Folders within folders; finding the one that holds the classes takes time by its square."""

Item = tuple[str, int]
"""A picture's name and its class index."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A data set's classes, in sorted order of their ids, and the pictures of its splits."""

    kind: str
    """tiny-imagenet, folders (own train and val) or folders-split (split here)."""
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    doubt: str = ""
    """Why another folder may be meant; empty if nothing speaks for it."""


def read_layout(store: Store, *, place: str) -> Layout:
    """Find classes and splits in `store`; `place` names it in errors. Errors: DataError."""
    names = store.names()
    if deep := next((name for name in names if name.count("/") > DEEPEST), None):
        raise DataError(f"{place} holds folders in {deep.count('/'):,} folders; valid: {DEEPEST}")
    root = _root_of(names)
    if beside := next((name for name in names if "/" in name and is_picture(name) and not name.startswith(root)), None):
        raise DataError(
            f"{place} holds classes in {shown(root.rstrip('/'))!r}, and pictures beside it: {shown(beside)!r}",
            hint="--data names the one folder that is meant",
        )
    inside = [name[len(root) :] for name in names if name.startswith(root)]
    trained = any(name.startswith("train/") for name in inside)
    train_prefix = "train/" if trained else ""
    by_class = _class_folders(inside, train_prefix)
    if len(by_class) < 2:
        raise DataError(
            f"{place} has {len(by_class)} class folders with pictures; valid: at least 2",
            hint="expected FOLDER/train/CLASS/*.jpg with FOLDER/val/CLASS/*.jpg, or FOLDER/CLASS/*.jpg",
        )
    empty = [name for name, pictures in by_class.items() if not pictures]
    if empty:
        kinds = {PurePosixPath(name).suffix.lower() for name in inside if name.startswith(f"{train_prefix}{empty[0]}/")}
        unread = ", ".join(sorted(kinds.intersection(UNREAD_SUFFIXES)))
        hint = f"its {unread} files are not read: convert them" if unread else "add pictures or remove the folder"
        raise DataError(f"class {empty[0]!r} in {place} has no picture", hint=hint)
    within = _folders_within(by_class, train_prefix)
    _require_pictures_of_their_own(within, by_class, place)
    if not trained and {"train"} < {name.casefold() for name in by_class} <= {"train", "test", *VAL_FOLDERS}:
        raise DataError(
            f"{place} holds {', '.join(map(repr, sorted(by_class)))}, which would be its classes",
            hint="for a split write train and val in small letters",
        )
    class_ids = tuple(sorted(by_class))
    if odd := [name for name in class_ids if acts(name)]:
        raise DataError(f"the class folder {odd[0]!r} in {place} has no name that can be shown", hint="rename it")
    index_of = {class_id: index for index, class_id in enumerate(class_ids)}
    items = [(root + name, index_of[class_id]) for class_id in class_ids for name in by_class[class_id]]

    kind = "folders"
    annotations = "val/val_annotations.txt"
    if annotations in inside:
        kind = "tiny-imagenet"
        val = _annotated(store.read(root + annotations), inside, root, index_of, place)
    else:
        val = _val_folders(inside, root, index_of, place) if trained else []
        if not val:
            kind = "folders-split"
            items, val = _split(items, start=len(root + train_prefix))
    if not val:
        raise DataError(f"{place} has no picture to validate on", hint="add a val folder, or more pictures to a class")
    words = _words(store.read(root + "words.txt")) if "words.txt" in inside else {}
    return Layout(
        kind=kind,
        class_ids=class_ids,
        class_names=tuple(words.get(class_id, class_id) for class_id in class_ids),
        train=tuple(items),
        val=tuple(val),
        doubt=_doubt(within),
    )


def _root_of(names: Sequence[str]) -> str:
    """The folder that holds `train/`, or else the class folders: archives often wrap all in one folder."""
    wrapped = sorted((name for name in names if "train/" in name), key=lambda name: name.count("/"))
    for name in wrapped:
        parts = name.split("/")
        if "train" in parts[:-1]:
            return "".join(part + "/" for part in parts[: parts.index("train")])
    root = ""
    while True:
        tops = {name[len(root) :].split("/")[0] for name in names if name.startswith(root) and "/" in name[len(root) :]}
        files = any(is_picture(name) for name in names if name.startswith(root) and "/" not in name[len(root) :])
        if len(tops) != 1 or files:
            return root
        deeper = root + tops.pop() + "/"
        if not any("/" in name[len(deeper) :] for name in names if name.startswith(deeper)):
            return root
        root = deeper


def _class_folders(inside: Sequence[str], prefix: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in inside:
        if not name.startswith(prefix):
            continue
        class_id, slash, rest = name[len(prefix) :].partition("/")
        if slash and class_id:
            pictures = found[class_id]  # an empty folder counts as a class, so that it is reported
            if rest and is_picture(rest):
                pictures.append(name)
    return dict(found)


def _require_pictures_of_their_own(within: dict[str, set[str]], by_class: dict[str, list[str]], place: str) -> None:
    """Errors: DataError if every class's pictures lie in folders of the class that no other has, as classes do.

    Tiny ImageNet has train/CLASS/images/: folders of one name in all classes are no classes.
    """
    folders = [folder.partition("/")[0] for class_id in within for folder in within[class_id]]
    first = {class_id: {folder.partition("/")[0] for folder in its} for class_id, its in within.items()}
    if all(folders) and len(set(folders)) == sum(map(len, first.values())):
        largest = max(by_class, key=lambda class_id: len(by_class[class_id]))
        raise DataError(
            f"no class folder of {place} holds pictures itself: those of {shown(largest)!r} lie in"
            f" {shown(min(within[largest]))!r}",
            hint="--data names the folder whose folders are the classes: is it one too high?",
        )


def _folders_within(by_class: dict[str, list[str]], prefix: str) -> dict[str, set[str]]:
    """Where in its folder each class has its pictures; the empty text is the folder itself."""
    return {
        class_id: {name[len(prefix) + len(class_id) + 1 :].rpartition("/")[0] for name in pictures}
        for class_id, pictures in by_class.items()
    }


def _doubt(within: dict[str, set[str]]) -> str:
    """Several data sets in one folder look like classes whose pictures lie in folders of the same names."""
    shared = sorted(set.intersection(*within.values()))
    if len(shared) < 2 or any("" in folders for folders in within.values()):
        return ""
    first, second = map(shown, shared[:2])
    return (
        f"every class ({shown(min(within))}, ...) has pictures in its folders {first} and {second}: if these are the"
        " classes, --data is one too high"
    )


def _annotated(content: bytes, inside: Sequence[str], root: str, index_of: dict[str, int], place: str) -> list[Item]:
    pictures = {PurePosixPath(name).name: name for name in inside if name.startswith("val/") and is_picture(name)}
    items: dict[str, Item] = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        fields = line.split("\t")
        if not line.strip():
            continue
        if len(fields) < 2 or fields[1] not in index_of:
            raise DataError(f"val_annotations.txt line {number} of {place} names no class of train/: {line[:60]!r}")
        if fields[0] not in pictures:
            raise DataError(
                f"val_annotations.txt line {number} of {place} names a picture that is absent: {fields[0]!r}"
            )
        if fields[0] in items:
            raise DataError(f"val_annotations.txt line {number} of {place} names a picture again: {fields[0]!r}")
        items[fields[0]] = (root + pictures[fields[0]], index_of[fields[1]])
    return list(items.values())


def _val_folders(inside: Sequence[str], root: str, index_of: dict[str, int], place: str) -> list[Item]:
    for folder in VAL_FOLDERS:
        by_class = _class_folders(inside, folder + "/")
        unknown = sorted(class_id for class_id, pictures in by_class.items() if pictures and class_id not in index_of)
        if unknown:
            raise DataError(
                f"{folder}/{shown(unknown[0])} in {place} is no class of train/",
                hint="rename the folder, or add the class to train/",
            )
        if any(by_class.values()):
            return [(root + name, index_of[class_id]) for class_id in sorted(by_class) for name in by_class[class_id]]
    return []


def _split(items: Sequence[Item], *, start: int) -> tuple[list[Item], list[Item]]:
    """Hold out about a tenth, by the SHA-256 of each name from `start` on, which is CLASS/PICTURE.

    So a picture stays on its side when others are added. Two exceptions keep every class on both sides: of two pictures
    one is held out, whatever their names, and one is left to train on.
    """
    by_label: dict[int, list[tuple[float, Item]]] = defaultdict(list)
    for item in items:
        digest = hashlib.sha256(item[0][start:].encode(errors="surrogatepass")).digest()
        by_label[item[1]].append((int.from_bytes(digest[:8], "big") / 2**64, item))
    held: set[Item] = set()
    for group in by_label.values():
        below = sum(chance < VAL_SHARE for chance, _ in group)
        held.update(item for _, item in sorted(group)[: min(max(1, below), len(group) - 1)])
    return [item for item in items if item not in held], [item for item in items if item in held]


def _words(content: bytes) -> dict[str, str]:
    pairs = (line.partition("\t") for line in content.decode(errors="replace").splitlines())
    return {class_id: words.strip() for class_id, tab, words in pairs if tab and words.strip()}
