"""One shape for every backend: uint8 pictures in, float32 logits out, checked here once for all of them.

A backend is a file beside this one that offers `open_backend`. It turns its library's errors into ours and says which
arithmetic it really uses; it does not decode, time or compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from tinyres.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from tinyres.spec import ModelSpec

Number = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class Precision:
    """How weights are kept and with what arithmetic they are used; a backend may compute in more than it stores."""

    storage: Number
    compute: Number

    @property
    def differs(self) -> bool:
        """Whether it computes in another precision than it stores."""
        return self.storage != self.compute

    def __str__(self) -> str:
        if not self.differs:
            return self.storage
        return f"{self.storage} stored, {self.compute} computed"


class Backend(Protocol):
    """What a backend's file returns from `open_backend(path, threads=...)`."""

    name: str
    """As in `BACKENDS`."""
    device: str
    """Where it really runs, read back from the library: cpu, cuda:0, ..."""
    spec: ModelSpec
    precision: Precision
    evidence: str
    """What its library itself says of what it runs."""

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, S, S, 3) contiguous uint8 to logits (N, C). Errors: BackendUnavailable if the library fails."""

    def close(self) -> None:
        """Give everything back; called once."""


class Runner:
    """A backend with its checks: `with open_runner(path) as run: logits = run(images)`."""

    def __init__(self, backend: Backend) -> None:
        self._backend: Backend | None = backend
        self.name = backend.name
        self.device = backend.device
        self.spec = backend.spec
        self.precision = backend.precision
        self.evidence = backend.evidence
        self._infer = backend.infer
        self._shape = backend.spec.input_shape
        self._classes = backend.spec.classes

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, C) float32 of (N, S, S, 3) uint8 RGB pictures, N at least 1.

        Errors: UsageError for another dtype or shape; BackendUnavailable if the backend fails or answers otherwise.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self._shape or not len(images):
            valid = ", ".join(map(str, self._shape))
            raise UsageError(f"{self.name} was given {images.dtype} {images.shape}; valid: uint8 (N, {valid})")
        logits = self._infer(np.ascontiguousarray(images))
        if logits.shape != (len(images), self._classes) or logits.dtype != np.float32:
            raise BackendUnavailable(
                f"{self.name} answered {logits.dtype} {logits.shape} for {len(images)} of {self._classes} classes"
            )
        return logits

    def device_times(self, images: NDArray[np.uint8], runs: int) -> dict[str, list[int]]:
        """Nanoseconds that the device alone takes for a batch, by part, each `runs` times; empty without a GPU."""
        timed = getattr(self._backend, "device_times", None)
        return timed(images, runs) if timed is not None else {}

    def close(self) -> None:
        """Give the backend's memory back; a second call does nothing."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None
            self._infer = self._closed

    def _closed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise UsageError(f"{self.name} was closed and answers no more", hint="open the file again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
