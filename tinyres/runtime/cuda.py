"""The few CUDA calls that running an engine takes, through NVIDIA's own bindings: no PyTorch, no CuPy.

Everything returned by CUDA is checked here, once, and becomes one of our errors.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyres.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class Device:
    """The first CUDA device."""

    name: str
    major: int
    minor: int
    """Of its compute capability."""
    driver: str
    """The newest CUDA version that the driver knows, as 13.0."""

    @property
    def compute_capability(self) -> str:
        """As 8.9."""
        return f"{self.major}.{self.minor}"


def bindings() -> Any:
    """NVIDIA's `cuda.bindings.runtime`. Errors: BackendUnavailable if it is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError as exc:
        raise BackendUnavailable(
            "engines run through the package cuda-bindings, which is not installed",
            hint="pip install 'tinyres[trt]' (or 'tinyres[rtx]')",
        ) from exc
    return runtime


def find_device(runtime: Any | None = None) -> Device:
    """The first CUDA device. Errors: BackendUnavailable that says whether driver, device or bindings are missing."""
    cuda = Cuda(runtime if runtime is not None else bindings())
    driver = int(cuda.call("cudaDriverGetVersion"))
    if driver == 0:
        raise BackendUnavailable("there is no NVIDIA driver here", hint="tinyres doctor shows what this machine has")
    error, count = cuda.runtime.cudaGetDeviceCount()
    if error.name == "cudaErrorInsufficientDriver":
        raise BackendUnavailable(
            f"the NVIDIA driver here is for CUDA {_dotted(driver)}, too old for these CUDA bindings",
            hint="a newer driver, or pip install 'tinyres[trt-cu12]'",
        )
    if error.name == "cudaErrorNoDevice" or not count:
        raise BackendUnavailable(f"there is no CUDA device here ({error.name})", hint="nvidia-smi shows what there is")
    properties = cuda.call("cudaGetDeviceProperties", 0)
    name = properties.name.decode().strip("\0") if isinstance(properties.name, bytes) else str(properties.name)
    return Device(name, int(properties.major), int(properties.minor), _dotted(driver))


def _dotted(version: int) -> str:
    """A CUDA version such as 13000 as 13.0."""
    return f"{version // 1000}.{version % 1000 // 10}"


class Cuda:
    """Calls to the CUDA runtime, with their errors raised."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function of the runtime returns beside its error code. Errors: BackendUnavailable."""
        error, *values = getattr(self.runtime, name)(*arguments)
        if int(error) != 0:
            raise BackendUnavailable(f"CUDA refused {name}: {getattr(error, 'name', error)}")
        return values[0] if values else None


class Stream:
    """A stream with what lives on it: device memory, pinned host memory and captured graphs."""

    def __init__(self, runtime: Any | None = None) -> None:
        self._cuda = Cuda(runtime if runtime is not None else bindings())
        self._release: list[Callable[[], object]] = []
        self.handle = self._cuda.call("cudaStreamCreateWithFlags", self._cuda.runtime.cudaStreamNonBlocking)
        self._release.append(lambda: self._cuda.call("cudaStreamDestroy", self.handle))

    def device_memory(self, size: int) -> int:
        """The address of `size` bytes on the device."""
        address = int(self._cuda.call("cudaMalloc", size))
        self._release.append(lambda: self._cuda.call("cudaFree", address))
        return address

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A host array that the device copies from and to without a detour."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._cuda.call("cudaMallocHost", size))
        self._release.append(lambda: self._cuda.call("cudaFreeHost", address))
        memory = (ctypes.c_uint8 * size).from_address(address)
        host: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        return host

    def copy_in(self, host: NDArray[Any], address: int, size: int) -> None:
        """Begin to copy `size` bytes to the device."""
        self._copy(address, host.ctypes.data, size, "cudaMemcpyHostToDevice")

    def copy_out(self, address: int, host: NDArray[Any], size: int) -> None:
        """Begin to copy `size` bytes from the device."""
        self._copy(host.ctypes.data, address, size, "cudaMemcpyDeviceToHost")

    def _copy(self, to: int, from_: int, size: int, kind: str) -> None:
        kinds = self._cuda.runtime.cudaMemcpyKind
        self._cuda.call("cudaMemcpyAsync", to, from_, size, getattr(kinds, kind), self.handle)

    def wait(self) -> None:
        """Until everything begun is done."""
        self._cuda.call("cudaStreamSynchronize", self.handle)

    def time(self, work: Callable[[], object], runs: int) -> list[int]:
        """Nanoseconds on the device from when it reaches what `work` begins on this stream to its end, `runs` times.

        Waiting for the host to launch more is in it: of a network of many small kernels it is most of it.
        """
        start, end = (self._cuda.call("cudaEventCreate") for _ in range(2))
        try:
            took = []
            for _ in range(runs):
                self._cuda.call("cudaEventRecord", start, self.handle)
                work()
                self._cuda.call("cudaEventRecord", end, self.handle)
                self.wait()
                took.append(round(self._cuda.call("cudaEventElapsedTime", start, end) * 1e6))
            return took
        finally:
            for event in (start, end):
                self._cuda.call("cudaEventDestroy", event)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` begins on this stream as a graph; the answer launches it, with one call to the driver."""
        mode = self._cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.call("cudaStreamBeginCapture", self.handle, mode)
        try:
            work()
        finally:
            graph = self._cuda.call("cudaStreamEndCapture", self.handle)
        launched = self._cuda.call("cudaGraphInstantiate", graph, 0)
        self._cuda.call("cudaGraphDestroy", graph)
        self._release.append(lambda: self._cuda.call("cudaGraphExecDestroy", launched))
        return lambda: self._cuda.call("cudaGraphLaunch", launched, self.handle)

    def close(self) -> None:
        """Give everything back, the newest first; what CUDA no longer takes back after a failure must not hide it."""
        while self._release:
            with contextlib.suppress(BackendUnavailable):
                self._release.pop()()
