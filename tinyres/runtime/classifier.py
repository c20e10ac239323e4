"""Pictures in, labels out: what a serving program imports. It needs numpy, Pillow and one backend, never PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from PIL import Image

from tinyres.decode import pixels_from_bytes, pixels_from_file, pixels_from_image
from tinyres.errors import ImageError, UsageError
from tinyres.runtime.backends import open_runner
from tinyres.runtime.runner import Runner

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TypeAlias

    from numpy.typing import NDArray
    from typing_extensions import Self

    Picture: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]
    # Not a Sequence: a str is one of str, and would be both.
    Pictures: TypeAlias = list[str] | list[Path] | list[bytes] | list[Image.Image] | list[NDArray[np.uint8]]


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

    @property
    def label(self) -> str:
        """The name of the best class."""
        return self.best[0].name

    @property
    def probability(self) -> float:
        """Of the best class."""
        return self.best[0].probability


class Classifier:
    """Classifies files, bytes, Pillow images and uint8 RGB arrays; decodes and resizes as training did.

    `Classifier("fp32.onnx")("cat.jpg")` is a Prediction; a list of pictures gives a list, in one batch a `batch`
    pictures. An open Runner may stand for the path. Safe to call from several threads.
    Errors: ArtifactError, BackendUnavailable on opening; ImageError for a picture that cannot be read.
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
        if isinstance(pictures, (list, tuple)):
            return self._classify([self._pixels(picture) for picture in pictures])
        return self._classify([self._pixels(pictures)])[0]

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
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ImageError(f"the array is {picture.dtype} {picture.shape}; valid: uint8 (H, W, 3) RGB")
            return pixels_from_image(Image.fromarray(picture), preprocess)
        raise ImageError(f"a {type(picture).__name__} is no picture; valid: path, bytes, Pillow image, uint8 array")

    def _classify(self, pixels: list[NDArray[np.uint8]]) -> list[Prediction]:
        predictions = []
        for start in range(0, len(pixels), self._batch):
            logits = self._runner(np.stack(pixels[start : start + self._batch])).astype(np.float64)
            exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = exponents / exponents.sum(axis=1, keepdims=True)
            for row in probabilities:
                best = np.argsort(-row, kind="stable")[: self._top]
                predictions.append(Prediction(tuple(self._guess(int(index), float(row[index])) for index in best)))
        return predictions

    def _guess(self, index: int, probability: float) -> Guess:
        return Guess(self.spec.class_ids[index], self.spec.class_names[index], probability)
