"""The places data can come from, behind one protocol: a tree of pictures (folder or zip), or the drawn shapes.

`find_source` turns what the user wrote after `--data` into one of them. Decoding and caching happen in `cache`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from tinyres.data import shapes
from tinyres.data.layout import read_layout
from tinyres.data.members import Names
from tinyres.data.store import FolderStore, ZipStore
from tinyres.decode import pixels_from_bytes
from tinyres.errors import DataError, ImageError, suggest, suggest_file
from tinyres.files import at_home
from tinyres.harmless import shown
from tinyres.pictures import UNREAD_SUFFIXES
from tinyres.units import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.data.store import Store
    from tinyres.spec import Preprocess

SplitName = Literal["train", "val"]
SPLITS: tuple[SplitName, SplitName] = ("train", "val")
NAMED = ("tiny-imagenet", "shapes")


class Source(Protocol):
    """Pictures with labels, not yet decoded. Picklable, so that every core can decode."""

    kind: str
    """How the classes and splits were found."""
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def labels(self, split: SplitName) -> NDArray[np.int64]:
        """(N,) class indices."""

    def name_of(self, split: SplitName, index: int) -> str:
        """What to call a picture in a message."""

    def pixels(self, split: SplitName, index: int, preprocess: Preprocess) -> NDArray[np.uint8]:
        """(S, S, 3) uint8 RGB. Errors: ImageError, DataError."""

    def fingerprint(self) -> str:
        """Changes when pictures or labels do."""


class PictureTree:
    """Pictures in a folder or a zip."""

    def __init__(self, store: Store, *, place: str) -> None:
        self._store = store
        layout = read_layout(store, place=place)
        suffixes = Counter(PurePosixPath(name).suffix.lower() for name in store.names())
        self.notes = [
            f"{counted(suffixes[kind], f'{kind} file')} left out: this format is not read; convert to JPEG or PNG"
            for kind in UNREAD_SUFFIXES
            if suffixes[kind]
        ]
        """What a user should know of how the tree was read."""
        if layout.doubt:
            self.notes.append(layout.doubt)
        self.kind = layout.kind
        self.class_ids = layout.class_ids
        self.class_names = layout.class_names
        items = {"train": layout.train, "val": layout.val}
        self._names = {split: Names(name for name, _ in items[split]) for split in SPLITS}
        self._labels = {split: np.array([label for _, label in items[split]], dtype=np.int64) for split in SPLITS}

    def labels(self, split: SplitName) -> NDArray[np.int64]:
        """(N,) class indices."""
        return self._labels[split]

    def name_of(self, split: SplitName, index: int) -> str:
        """The picture's name inside the folder or zip."""
        return shown(self._names[split][index])

    def pixels(self, split: SplitName, index: int, preprocess: Preprocess) -> NDArray[np.uint8]:
        """Decode one picture. Errors: ImageError, DataError."""
        name = self._names[split][index]
        return pixels_from_bytes(self._store.read(name), preprocess, name=shown(name))

    def fingerprint(self) -> str:
        """SHA-256 over the classes and the pictures in use; what else lies in the folder or zip does not count.

        So the official archive equals one without its unlabelled test pictures.
        """
        digest = hashlib.sha256(repr((self.kind, self.class_ids, self.class_names)).encode(errors="surrogateescape"))
        for split in SPLITS:
            for name, label in zip(self._names[split], self._labels[split].tolist(), strict=True):
                entry = f"{split}\0{name}\0{label}\0{self._store.state(name)};"
                digest.update(entry.encode(errors="surrogateescape"))
        return digest.hexdigest()


class Shapes:
    """The embedded, drawn data set."""

    kind = "shapes"
    class_ids: tuple[str, ...] = shapes.CLASSES
    class_names: tuple[str, ...] = shapes.CLASSES

    def labels(self, split: SplitName) -> NDArray[np.int64]:
        """(N,) class indices."""
        return np.array([shapes.label_of(index) for index in range(shapes.SIZES[split])], dtype=np.int64)

    def name_of(self, split: SplitName, index: int) -> str:
        """Split and number."""
        return f"shapes/{split}/{index}"

    def pixels(self, split: SplitName, index: int, preprocess: Preprocess) -> NDArray[np.uint8]:
        """Draw one picture."""
        return shapes.render(split, index, preprocess.image_size)

    def fingerprint(self) -> str:
        """Of the drawing code: another renderer is another data set."""
        return hashlib.sha256(Path(shapes.__file__).read_bytes()).hexdigest()


def find_source(data: str, *, archive: Path | None = None) -> Source:
    """Open what `--data` names: `shapes`, `tiny-imagenet` (read from `archive`), a zip or a folder.

    Errors: DataError if there is no such place or it holds no classes of pictures.
    """
    if data == "shapes":
        return Shapes()
    if data == "tiny-imagenet":
        if archive is None:
            raise DataError("tiny-imagenet is not downloaded", hint="tinyres data prepare --data tiny-imagenet")
        return PictureTree(ZipStore(archive), place="tiny-imagenet")
    path = at_home(data)
    if path.is_dir():
        return PictureTree(FolderStore(path), place=data)
    if path.is_file():
        return PictureTree(ZipStore(path), place=data)
    raise DataError(f"--data {data}: there is no such folder or zip", hint=_suggest(data))


def _suggest(data: str) -> str:
    """A folder or zip with a close name, if none of those that come with tinyres is meant."""
    named = suggest(data, NAMED)
    beside = None if named.startswith("did") else suggest_file(Path(data))
    return " ".join(filter(None, [beside, f"{named}, a folder or a zip"]))


def read_pixels(
    source: Source, split: SplitName, index: int, preprocess: Preprocess
) -> tuple[NDArray[np.uint8] | None, str]:
    """One picture, or None and the reason it cannot be read: one bad file must not end a long build."""
    try:
        return source.pixels(split, index, preprocess), ""
    except (ImageError, DataError) as exc:
        return None, str(exc)
