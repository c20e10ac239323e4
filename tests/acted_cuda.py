"""CUDA and an engine, acted on the host: device memory is host memory, and nothing happens before it is waited for.

What is begun on a stream lies in a queue until cudaStreamSynchronize, so a program that reads too early reads nonsense;
what is begun while recording goes into the graph instead.
"""

from __future__ import annotations

import ctypes
import enum
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

OK = 0


class Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100


class Cuda:
    """Stands for `cuda.bindings.runtime`."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, *, driver: int = 13000, devices: int = 1, capability: tuple[int, int] = (8, 9)) -> None:
        self.driver, self.devices, self.capability = driver, devices, capability
        self.held: dict[int, Any] = {}
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.launches = 0
        self.refuse = ""
        self.events = self.clock = 0

    def begin(self, work: Callable[[], None]) -> None:
        (self.queue if self.recording is None else self.recording).append(work)

    def cudaDriverGetVersion(self) -> tuple[Error, int]:
        return Error.cudaSuccess, self.driver

    def cudaGetDeviceCount(self) -> tuple[Error, int | None]:
        if self.refuse == "driver":
            return Error.cudaErrorInsufficientDriver, None
        return (Error.cudaSuccess, self.devices) if self.devices else (Error.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, index: int) -> tuple[Error, Any]:
        major, minor = self.capability
        return Error.cudaSuccess, SimpleNamespace(name=b"Acted GPU\0\0", major=major, minor=minor)

    def _hold(self, size: int) -> tuple[Error, int | None]:
        if self.refuse == "memory":
            return Error.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)
        self.held[ctypes.addressof(buffer)] = buffer
        return Error.cudaSuccess, ctypes.addressof(buffer)

    cudaMalloc = cudaMallocHost = _hold

    def _free(self, address: int) -> tuple[Error]:
        del self.held[address]
        return (Error.cudaSuccess,)

    cudaFree = cudaFreeHost = _free

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Error, int]:
        self.held[7] = "stream"
        return Error.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[Error]:
        return self._free(stream)

    def cudaMemcpyAsync(self, to: int, from_: int, size: int, kind: int, stream: int) -> tuple[Error]:
        self.begin(lambda: ctypes.memmove(to, from_, size) and None)
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:
        assert self.recording is None
        while self.queue:
            self.clock += 1  # everything takes a millisecond, an event too
            self.queue.pop(0)()
        return (Error.cudaSuccess,)

    def cudaEventCreate(self) -> tuple[Error, int]:
        self.events += 1
        self.held[100 + self.events] = 0
        return Error.cudaSuccess, 100 + self.events

    def cudaEventDestroy(self, event: int) -> tuple[Error]:
        return self._free(event)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Error]:
        self.begin(lambda: self.held.__setitem__(event, self.clock))
        return (Error.cudaSuccess,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[Error, float]:
        return Error.cudaSuccess, float(self.held[end] - self.held[start])

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Error]:
        assert not self.queue, "recorded while work was under way"
        self.recording = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Error, Any]:
        graph, self.recording = self.recording, None
        return Error.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Error, Any]:
        key = id(graph)
        self.held[key] = graph
        return Error.cudaSuccess, key

    def cudaGraphDestroy(self, graph: Any) -> tuple[Error]:
        return (Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, launched: int) -> tuple[Error]:
        return self._free(launched)

    def cudaGraphLaunch(self, launched: int, stream: int) -> tuple[Error]:
        self.launches += 1
        self.queue.extend(self.held[launched])
        return (Error.cudaSuccess,)


class Context:
    def __init__(self, engine: ActedEngine) -> None:
        self.engine, self.shape, self.addresses = engine, (0,), {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return self.engine.least <= shape[0] <= self.engine.most

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.fails:
            return False
        shape, addresses, engine = self.shape, dict(self.addresses), self.engine
        alive = weakref.ref(self)  # its memory goes with it, and a graph does not hold it

        def work() -> None:
            assert alive() is not None, "run after its context was gone"
            size = int(np.prod(shape))
            memory = (ctypes.c_uint8 * size).from_address(addresses["image"])
            logits = engine.answer(np.frombuffer(memory, dtype=np.uint8).reshape(shape))
            ctypes.memmove(addresses["logits"], np.ascontiguousarray(logits).ctypes.data, logits.nbytes)

        self.engine.cuda.begin(work)
        return True


class ActedEngine:
    """Answers on the host: (N, S, S, 3) pictures to (N, classes) logits."""

    def __init__(
        self, cuda: Cuda, answer: Callable[[np.ndarray], np.ndarray], *, classes: int, least: int = 1, most: int = 9
    ) -> None:
        self.cuda, self.answer, self.classes = cuda, answer, classes
        self.least, self.most, self.fails = least, most, False
        self.contexts, self.contexts_most = 0, -1

    def create_execution_context(self, config: object = None) -> Context | None:
        if self.contexts == self.contexts_most:
            return None
        self.contexts += 1
        return Context(self)


def mean_colours(classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """A fixed matrix of the pictures' mean colours."""
    matrix = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    return lambda images: (images.astype(np.float32).mean(axis=(1, 2)) @ matrix).astype(np.float32)
