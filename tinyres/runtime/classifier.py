"""Pictures in, labels out: what a serving program imports. It needs numpy, Pillow and one backend, never PyTorch."""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np
from PIL import Image

from tinyres.decode import MAX_BYTES, pixels_from_array, pixels_from_bytes, pixels_from_file, pixels_from_image
from tinyres.errors import BackendUnavailable, ImageError, UsageError
from tinyres.pictures import find_pictures
from tinyres.runtime.backends import open_runner
from tinyres.runtime.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType
    from typing import BinaryIO, TypeAlias

    from numpy.typing import NDArray
    from typing_extensions import Self

    Picture: TypeAlias = str | Path | bytes | BinaryIO | Image.Image | NDArray[np.uint8]
    # Not a Sequence: a str is one of str, and would be both.
    Pictures: TypeAlias = list[str] | list[Path] | list[bytes] | list[Image.Image] | list[NDArray[np.uint8]]

AnyPicture = TypeVar("AnyPicture", bound="Picture")
DECODERS = min(8, os.cpu_count() or 1)
"""Threads that decode while the backend computes; Pillow lets go of the interpreter while it does."""


@dataclass(frozen=True, slots=True)
class Guess:
    """One class with its probability."""

    id: str
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best classes of one picture, best first."""

    best: tuple[Guess, ...]

    def __repr__(self) -> str:
        return f"Prediction({', '.join(f'{guess.name!r} {guess.probability:.1%}' for guess in self.best)})"

    def _repr_html_(self) -> str:
        from html import escape  # notebooks load it anyway, and a serving program never does

        cells = [f"<td>{guess.probability:.1%}</td><td>{escape(guess.name)}</td>" for guess in self.best]
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

    @property
    def label(self) -> str:
        """The name of the best class."""
        return self.best[0].name

    @property
    def probability(self) -> float:
        """Of the best class."""
        return self.best[0].probability


class Classifier:
    """Classifies files by path or open, bytes, Pillow images and uint8 RGB arrays; decodes and resizes as training did.

    `Classifier("fp32.onnx")("cat.jpg")` is a Prediction; a list of pictures gives a list, in one batch a `batch`
    pictures. `stream` and `folder` answer any number of pictures, one by one, and go on after a bad one. `spec` has
    the classes. An open Runner may stand for the path. Safe to call from several threads.
    Errors: ArtifactError, BackendUnavailable on opening; ImageError for a picture that cannot be read;
    BackendUnavailable for an answer that is no number.
    """

    def __init__(
        self,
        model: str | Path | Runner,
        *,
        backend: str | None = None,
        threads: int | None = None,
        top: int = 5,
        batch: int = 32,
    ) -> None:
        if top < 1 or batch < 1:
            raise UsageError(f"top {top} and batch {batch} must be at least 1")
        opened = model if isinstance(model, Runner) else open_runner(model, backend=backend, threads=threads)
        self._runner = opened
        self.spec = self._runner.spec
        self._top = min(top, self.spec.classes)
        self._batch = batch

    @overload
    def __call__(self, pictures: Picture) -> Prediction: ...
    @overload
    def __call__(self, pictures: Pictures) -> list[Prediction]: ...
    def __call__(self, pictures: object) -> Prediction | list[Prediction]:
        """Classify one picture, or each of a list."""
        if not isinstance(pictures, (list, tuple)):
            return self._classify([self._pixels(pictures)])[0]
        predictions = []
        for _, answer in self.stream(pictures):
            if isinstance(answer, ImageError):
                raise answer
            predictions.append(answer)
        return predictions

    def stream(self, pictures: Iterable[AnyPicture]) -> Iterator[tuple[AnyPicture, Prediction | ImageError]]:
        """Each picture with its answer, in order, or with the error that says why it has none.

        The next batch is decoded while one is classified; no more than two are held in memory.
        """
        waiting = iter(pictures)
        ahead: deque[list[tuple[AnyPicture, Future[NDArray[np.uint8]]]]] = deque()
        pool = ThreadPoolExecutor(DECODERS)
        try:
            while True:
                batch = [(picture, pool.submit(self._pixels, picture)) for picture in islice(waiting, self._batch)]
                if batch:
                    ahead.append(batch)
                if len(ahead) == 2 or not batch:
                    if not ahead:
                        return
                    yield from self._answered(ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)  # whoever leaves early waits for no picture that no one asks for

    def folder(self, path: str | Path) -> Iterator[tuple[Path, Prediction | ImageError]]:
        """As `stream`, for the pictures in a folder and the folders within, sorted. A pattern (`a/*.jpg`) will do."""
        return self.stream(find_pictures([path]))

    def close(self) -> None:
        """Give the backend's memory back."""
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pixels(self, picture: object) -> NDArray[np.uint8]:
        preprocess = self.spec.preprocess
        if isinstance(picture, (str, Path)):
            return pixels_from_file(picture, preprocess)
        if isinstance(picture, bytes):
            return pixels_from_bytes(picture, preprocess)
        if isinstance(picture, Image.Image):
            return pixels_from_image(picture, preprocess)
        if isinstance(picture, np.ndarray):
            return pixels_from_array(picture, preprocess)
        if callable(read := getattr(picture, "read", None)) and isinstance(content := read(MAX_BYTES + 1), bytes):
            return pixels_from_bytes(content, preprocess)
        kind = type(picture).__name__
        raise ImageError(
            f"an object of type {kind} is no picture; valid: path, bytes, binary file, Pillow image, uint8 array"
        )

    def _answered(
        self, batch: list[tuple[AnyPicture, Future[NDArray[np.uint8]]]]
    ) -> Iterator[tuple[AnyPicture, Prediction | ImageError]]:
        decoded = [_result(future) for _, future in batch]
        pixels = [found for found in decoded if not isinstance(found, ImageError)]
        predictions = iter(self._classify(pixels) if pixels else ())
        for (picture, _), found in zip(batch, decoded, strict=True):
            yield picture, found if isinstance(found, ImageError) else next(predictions)

    def _classify(self, pixels: list[NDArray[np.uint8]]) -> list[Prediction]:
        """Of one batch. Few operations: after a session's run each meets a cold cache, and costs 10 us and more."""
        predictions = []
        for row in self._runner(pixels[0][None] if len(pixels) == 1 else np.stack(pixels)):
            best = np.argsort(-row, kind="stable")[: self._top]
            most = float(row[best[0]])
            odds = np.exp(row - (most if math.isfinite(most) else 0), dtype=np.float64)  # so that none overflows
            total = float(np.add.reduce(odds))
            if not math.isfinite(total):
                raise BackendUnavailable(f"{self._runner.name} answered with NaN or infinity")
            shares = (odds[best] / total).tolist()
            predictions.append(Prediction(tuple(map(self._guess, best.tolist(), shares))))
        return predictions

    def _guess(self, index: int, probability: float) -> Guess:
        return Guess(self.spec.class_ids[index], self.spec.class_names[index], probability)


def _result(future: Future[NDArray[np.uint8]]) -> NDArray[np.uint8] | ImageError:
    try:
        return future.result()
    except ImageError as exc:
        return exc
