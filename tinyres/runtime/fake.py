"""A backend that answers with a function: for tests of what stands on a Runner, here and in programs that use one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyres.runtime.runner import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from tinyres.spec import ModelSpec


class FakeBackend:
    """`Runner(FakeBackend(spec, answer))` gives `answer(images)`; `closed` counts how often it was closed."""

    name = "fake"
    device = "none"
    evidence = "a function"

    def __init__(self, spec: ModelSpec, answer: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> None:
        self.spec = spec
        self.precision = Precision("fp32", "fp32")
        self.closed = 0
        self._answer = answer

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the function says."""
        return self._answer(images)

    def close(self) -> None:
        """Count it."""
        self.closed += 1
