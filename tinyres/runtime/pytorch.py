"""PyTorch on a checkpoint, as it is after training: the rows that every export is compared with."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import torch

from tinyres.checkpoint import load_weights
from tinyres.data.augment import normalize
from tinyres.errors import BackendUnavailable, TinyresError
from tinyres.model import pick_device
from tinyres.runtime.runner import Number, Precision
from tinyres.units import counted

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from tinyres.spec import ModelSpec

BF16_CPUS = ("avx512_bf16", "amx_bf16")
"""Without one of them a CPU takes bfloat16 apart and is slower for it."""


class PyTorch:
    """The model in eager mode or compiled; in float32 without TF32, or in bfloat16."""

    name = "pytorch"

    def __init__(
        self, model: nn.Module, spec: ModelSpec, device: torch.device, dtype: torch.dtype, *, evidence: str
    ) -> None:
        number: Number = "bf16" if dtype == torch.bfloat16 else "fp32"
        self.device = str(device)
        self.spec = spec
        self.precision = Precision(number, number)
        self.evidence = evidence
        self._model, self._dtype = model, dtype

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy in, normalise, run, copy out."""
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(np.require(images, requirements="W")).to(self.device)
                pixels = normalize(pixels, self.spec.preprocess).to(self._dtype)
                logits: NDArray[np.float32] = self._model(pixels).float().cpu().numpy()
        except RuntimeError as exc:
            raise BackendUnavailable(f"PyTorch failed: {_first_line(exc)}") from exc
        return logits

    def device_times(self, images: NDArray[np.uint8], runs: int) -> dict[str, list[int]]:
        """Nanoseconds of the network alone on a GPU, between events on its stream; empty on a CPU."""
        if not self.device.startswith("cuda"):
            return {}
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        took = []
        with torch.inference_mode():
            pixels = torch.from_numpy(np.require(images, requirements="W")).to(self.device)
            pixels = normalize(pixels, self.spec.preprocess).to(self._dtype)
            for _ in range(runs):
                start.record()
                self._model(pixels)
                end.record()
                end.synchronize()
                took.append(round(start.elapsed_time(end) * 1e6))
        return {"network": took}

    def close(self) -> None:
        """Drop the weights."""
        del self._model


def open_backend(path: Path, *, threads: int | None, way: str = "channels_last") -> PyTorch:
    """Load a checkpoint onto the default device; `way` is one of `BACKENDS`.

    Errors: CheckpointError; BackendUnavailable for what this device or installation cannot do.
    """
    device = pick_device()
    layout, _, half = way.partition(" ")
    if half:
        _require_bf16(device)
    if layout == "compiled":
        _require_compiler(device)
    checkpoint = load_weights(path)
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    dtype = torch.bfloat16 if half else torch.float32
    model: nn.Module = checkpoint.model().to(device, dtype)
    if layout != "eager":
        model = model.to(memory_format=torch.channels_last)
    weight = next(model.parameters())
    evidence = f"weights in {str(weight.dtype).removeprefix('torch.')} on {weight.device}, {layout.replace('_', ' ')}"
    if layout == "compiled":
        model, graphs = _compiled(model, checkpoint.spec, device, dtype)
        evidence = f"{evidence}: {graphs} without a break"
    return PyTorch(model, checkpoint.spec, device, dtype, evidence=evidence)


def _compiled(model: nn.Module, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, str]:
    """The model through `torch.compile` for any batch, and how many graphs it is. Errors: BackendUnavailable."""
    from torch._dynamo import config, utils

    # Past its limit of recompilations the library goes on without compiling, and says so in a log alone.
    config.fail_on_recompile_limit_hit = True
    logging.getLogger("torch").setLevel(logging.ERROR)
    compiled: nn.Module = torch.compile(model, dynamic=True, fullgraph=True)  # type: ignore[assignment]
    size, before = spec.preprocess.image_size, utils.counters["stats"]["unique_graphs"]
    try:
        with torch.inference_mode():
            pixels = torch.zeros((1, size, size, 3), device=device, dtype=torch.uint8)
            compiled(normalize(pixels, spec.preprocess).to(dtype))  # as they will come, in their layout
    except Exception as exc:  # of the compiler or the tools that it starts: anything
        raise BackendUnavailable(f"torch.compile failed: {_first_line(exc)}") from exc
    count = utils.counters["stats"]["unique_graphs"] - before
    if not count:
        raise BackendUnavailable("torch.compile compiled nothing")
    return compiled, counted(count, "graph")


def _require_bf16(device: torch.device) -> None:
    from tinyres.environment import capture

    if device.type == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise BackendUnavailable("this GPU has no bf16 arithmetic")
        return
    here = capture().instruction_sets
    if not any(name in here for name in BF16_CPUS):
        raise BackendUnavailable(f"this processor has no bf16 instructions ({' or '.join(BF16_CPUS)})")


def _require_compiler(device: torch.device) -> None:
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++", "cl"))):
        raise BackendUnavailable("torch.compile needs a C++ compiler", hint="apt-get install g++")


def _first_line(error: Exception) -> str:
    if isinstance(error, TinyresError):
        return str(error)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
