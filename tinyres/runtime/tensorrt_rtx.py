"""Engines of TensorRT for RTX: TensorRT's calls, but kernels are compiled where the engine runs, and kept.

The first run of an engine on a machine compiles; what it compiled goes into the library's runtime cache, which lies in
our cache folder and is read by the next process. The library itself refuses a cache of another version, GPU or driver.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tinyres.errors import StorageError
from tinyres.files import cache_root, write_bytes
from tinyres.runtime.tensorrt import Engine, open_engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tinyres.runtime.cuda import Device, Stream
    from tinyres.runtime.passport import Passport
    from tinyres.runtime.tensorrt_library import Library


class RtxEngine(Engine):
    """A deserialised engine. It records its graphs by itself."""

    library_name = "tensorrt-rtx"

    def __init__(self, library: Library, engine: Any, passport: Passport, stream: Stream, device: Device) -> None:
        module = library.module
        # Kernels for the very batch and not for any, at once; and each batch's work as one graph.
        self._config = engine.create_runtime_config()
        self._config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        specialize = module.DynamicShapesKernelSpecializationStrategy
        self._config.dynamic_shapes_kernel_specialization_strategy = specialize.EAGER
        self._cache = self._config.create_runtime_cache()
        self._cache_path = cache_root() / "engines" / f"{passport.engine_sha256}.rtx"
        self._compiled_before = b""
        with contextlib.suppress(OSError):
            kept = self._cache_path.read_bytes()
            if self._cache.deserialize(kept):
                self._compiled_before = kept
        self._config.set_runtime_cache(self._cache)
        super().__init__(library, engine, passport, stream, device)

    def _new_context(self) -> Any:
        return self._made(self._engine.create_execution_context(self._config))

    def _record(self, count: int) -> Callable[[], None]:
        context = self._new_context()
        self._contexts.append(context)
        self._begin(context, count)
        return lambda: self._begin(context, count)

    def close(self) -> None:
        """Keep what was compiled, and give everything back."""
        try:
            compiled = bytes(self._cache.serialize())
            if compiled != self._compiled_before:
                with contextlib.suppress(StorageError):  # a cache that cannot be kept costs time only
                    write_bytes(self._cache_path, compiled)
        finally:
            super().close()
            self._config = self._cache = None


def open_backend(path: Path, *, threads: int | None) -> Engine:
    """Load an engine. Errors: ArtifactError, BackendUnavailable."""
    del threads  # of the CPU
    return open_engine(path, RtxEngine)
