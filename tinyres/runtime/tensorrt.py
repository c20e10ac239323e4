"""TensorRT engines, of both libraries, without PyTorch: pinned memory, one stream, a CUDA graph for each batch size.

What an engine is stands in its passport; nothing is deserialised that was not built for what is here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tinyres.errors import BackendUnavailable
from tinyres.runtime import tensorrt_library
from tinyres.runtime.cuda import Stream, find_device
from tinyres.runtime.passport import read_passport, require_fit
from tinyres.runtime.runner import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.runtime.cuda import Device
    from tinyres.runtime.passport import Passport
    from tinyres.runtime.tensorrt_library import Library, Name

GRAPHS = 4
"""So many batch sizes get a CUDA graph, on their second call; each has a context of its own, which holds memory for the
profile's largest batch. Others are enqueued."""


class Engine:
    """A deserialised engine. One call at a time: it has one stream and one set of buffers."""

    library_name: ClassVar[Name] = "tensorrt"

    def __init__(self, library: Library, engine: Any, passport: Passport, stream: Stream, device: Device) -> None:
        self.name = library.name
        self.device = f"cuda:0 ({device.name})"
        self.spec = passport.metadata.spec
        precision = passport.metadata.precision
        self.precision = Precision(precision, precision)
        self.evidence = f"{library.name} {library.version} on {device.name}"
        self._library, self._engine, self._stream = library, engine, stream
        _, self._usual, self._most = passport.options.batches
        self._image = stream.pinned((self._most, *self.spec.input_shape), np.uint8)
        self._logits = stream.pinned((self._most, self.spec.classes), np.float32)
        shapes = {"image": self._image, "logits": self._logits}
        self._memory = {name: stream.device_memory(host.nbytes) for name, host in shapes.items()}
        # The engine gives probabilities too; they stay on the device.
        self._memory["probabilities"] = stream.device_memory(self._logits.nbytes)
        self._seen: set[int] = set()
        self._graphs: dict[int, Callable[[], None]] = {}
        self._contexts: list[Any] = []  # a graph holds addresses of its context's memory, and not the context
        self._context = self._new_context()
        self._lock = threading.Lock()

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy in, run, copy out; more pictures than the profile's most go in parts. Errors: BackendUnavailable."""
        with self._lock:
            parts = [self._part(images[at : at + self._most]) for at in range(0, len(images), self._most)]
        return np.concatenate(parts)

    def _part(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = len(images)
        self._image[:count] = images
        if count in self._graphs:
            self._graphs[count]()
        elif count in self._seen and len(self._graphs) < GRAPHS:
            self._graphs[count] = self._record(count)
        else:
            self._seen.add(count)
            self._begin(self._context, count)
        self._stream.wait()
        logits: NDArray[np.float32] = self._logits[:count].copy()
        return logits

    def device_times(self, images: NDArray[np.uint8], runs: int) -> dict[str, list[int]]:
        """Nanoseconds by part: the copies, the network, and all three enqueued one by one and launched as a graph.

        Empty for more pictures than the profile takes at once.
        """
        if (count := len(images)) > self._most:
            return {}
        with self._lock:
            self._part(images)
            if count not in self._graphs:
                self._graphs[count] = self._record(count)
            context, stream = self._context, self._stream
            self._begin(context, count)
            parts: dict[str, Callable[[], object]] = {
                "copy in": lambda: self._copy_in(count),
                "network": lambda: self._run(context),
                "copy out": lambda: self._copy_out(count),
                "all, enqueued": lambda: self._enqueue(context, count),
                "all, one graph": self._graphs[count],
            }
            return {name: stream.time(work, runs) for name, work in parts.items()}

    def _record(self, count: int) -> Callable[[], None]:
        """Run `count` pictures, and record the same as a graph, with a context that keeps this batch size."""
        context = self._new_context()
        self._contexts.append(context)
        self._begin(context, count)  # what is allocated lazily must be before recording
        self._stream.wait()
        return self._stream.capture(lambda: self._enqueue(context, count))

    def _begin(self, context: Any, count: int) -> None:
        if not context.set_input_shape("image", (count, *self.spec.input_shape)):
            raise BackendUnavailable(f"the engine refused a batch of {count}: {self._library.messages.take_error()}")
        for name, address in self._memory.items():
            context.set_tensor_address(name, address)
        self._enqueue(context, count)

    def _enqueue(self, context: Any, count: int) -> None:
        self._copy_in(count)
        self._run(context)
        self._copy_out(count)

    def _copy_in(self, count: int) -> None:
        self._stream.copy_in(self._image, self._memory["image"], count * self._image[0].nbytes)

    def _run(self, context: Any) -> None:
        if not context.execute_async_v3(int(self._stream.handle)):
            raise BackendUnavailable(f"{self.name} failed: {self._library.messages.take_error()}")

    def _copy_out(self, count: int) -> None:
        self._stream.copy_out(self._memory["logits"], self._logits, count * self._logits[0].nbytes)

    def _new_context(self) -> Any:
        return self._made(self._engine.create_execution_context())

    def _made(self, context: Any) -> Any:
        """Errors: BackendUnavailable for the None that stands for no memory."""
        if context is None:
            reason = self._library.messages.take_error() or "too little memory"
            raise BackendUnavailable(f"{self.name} made no execution context: {reason}")
        return context

    def information(self) -> str:
        """What the library's inspector says of each layer at the usual batch size: JSON that differs by version."""
        context = self._new_context()  # without one, dynamic shapes leave every type out
        context.set_input_shape("image", (self._usual, *self.spec.input_shape))
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = context
        return str(inspector.get_engine_information(self._library.module.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Give back memory, graphs and engine."""
        self._stream.close()
        self._graphs.clear()
        self._contexts.clear()
        self._context = self._engine = None


def open_backend(path: Path, *, threads: int | None) -> Engine:
    """Load a TensorRT engine. Errors: ArtifactError, BackendUnavailable."""
    del threads  # of the CPU
    return open_engine(path, Engine)


def open_engine(path: Path, kind: type[Engine]) -> Engine:
    """Load an engine of either library. Errors: ArtifactError without a passport; BackendUnavailable."""
    passport = read_passport(path)
    library = tensorrt_library.load(kind.library_name)
    require_fit(passport, library, None)
    device = find_device()
    require_fit(passport, library, device)
    runtime = library.module.Runtime(library.logger)
    if passport.options.version_compatible and not library.is_rtx:
        runtime.engine_host_code_allowed = True  # a version-compatible plan brings its own runtime; ours is hashed
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        reason = library.messages.take_error()
        raise BackendUnavailable(f"{library.name} refused {path.name}: {reason}", hint="export it again")
    stream = Stream()
    try:
        return kind(library, engine, passport, stream, device)
    except BaseException:
        stream.close()
        raise
