"""How the arithmetic of a run is done: device, threads, precision, compiled or not. Chosen once, kept with the run.

A run resumed under the same Compute is equal bit for bit; `differences` names what is not the same.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional

from tinyres.environment import capture
from tinyres.errors import TrainingError, UsageError
from tinyres.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tinyres.progress import Progress
    from tinyres.recipes import Recipe
    from tinyres.training.distributed import World

WORTH_IT = 1.2
"""bf16 rounds coarsely: it is taken only if it is so many times faster."""
PROBE_IMAGES, PROBE_SIZE, PROBE_ROUNDS = 16, 32, 4
HOPELESS = 3.0
"""A first try so many times slower than float32 is not repeated: it can be 50 times slower."""


@dataclass(frozen=True, slots=True)
class Compute:
    """What must be alike for equal bits."""

    device: str
    """The GPU's name, or cpu with its widest instructions."""
    torch: str
    threads: int
    processes: int
    precision: Literal["fp32", "bf16"]
    compiled: bool
    deterministic: bool


def choose(
    recipe: Recipe, model: nn.Module, world: World, *, deterministic: bool, before: Compute | None, progress: Progress
) -> Compute:
    """Decide how to compute, and set torch to it; a run resumed on the same device keeps what it had `before`.

    Errors: UsageError for what the recipe demands and the device cannot do.
    """
    on_gpu = world.device.type == "cuda"
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = on_gpu and not deterministic
    torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32
    torch.backends.cudnn.allow_tf32 = False
    device = torch.cuda.get_device_name(world.device) if on_gpu else f"cpu {torch.backends.cpu.get_cpu_capability()}"
    # Elsewhere the bits differ anyway, and what was fast there may be hopeless here.
    kept = before if before is not None and before.device == device else None
    return Compute(
        device=device,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        processes=world.size,
        precision=kept.precision if kept else world.first(_precision(recipe, model, world, progress)),
        compiled=kept.compiled if kept else _compiles(recipe, on_gpu=on_gpu),
        deterministic=deterministic,
    )


def differences(before: Compute, now: Compute) -> list[str]:
    """What a resumed run does not share with its beginning, in words."""
    pairs = ((field.name, getattr(before, field.name), getattr(now, field.name)) for field in dataclasses.fields(now))
    return [f"{name} was {old}, is {new}" for name, old, new in pairs if old != new]


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """bf16 where a step allows it, if that is the precision."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield


def _precision(recipe: Recipe, model: nn.Module, world: World, progress: Progress) -> Literal["fp32", "bf16"]:
    if recipe.precision != "auto":
        return recipe.precision
    if world.device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if not {"avx512_bf16", "amx_bf16"} & set(capture().instruction_sets):
        return "fp32"
    progress.log("trying bf16 beside fp32, for some seconds")
    speedup = bf16_speedup(model)
    taken: Literal["fp32", "bf16"] = "bf16" if speedup >= WORTH_IT else "fp32"
    progress.log(f"computes in {taken}: bf16 is {speedup:.1f} times as fast as fp32 here")
    return taken


def bf16_speedup(model: nn.Module) -> float:
    """How many times faster training steps of `model` are in bf16 than in float32 on this CPU, by trying a few."""
    probe = copy.deepcopy(model).train()
    images = torch.randn(PROBE_IMAGES, 3, PROBE_SIZE, PROBE_SIZE).contiguous(memory_format=torch.channels_last)

    def seconds(precision: str) -> float:
        started = time.perf_counter()
        with autocast(torch.device("cpu"), precision):
            logits = probe(images)
        logits.float().square().mean().backward()
        return time.perf_counter() - started

    seconds("fp32")
    fp32, bf16 = seconds("fp32"), seconds("bf16")
    if bf16 > HOPELESS * fp32:
        return fp32 / bf16
    for _ in range(PROBE_ROUNDS):  # in turns, so that other work on the machine hits both
        fp32, bf16 = min(fp32, seconds("fp32")), min(bf16, seconds("bf16"))
    return fp32 / bf16


def _compiles(recipe: Recipe, *, on_gpu: bool) -> bool:
    if recipe.compile == "on" and not on_gpu and shutil.which("g++") is None and shutil.which("clang++") is None:
        raise UsageError("compile=on needs a C++ compiler on a CPU", hint="install g++, or --set compile=off")
    return recipe.compile == "on" or (recipe.compile == "auto" and on_gpu)


def compile_model(
    model: nn.Module, *, images: int, sizes: list[int], device: torch.device, precision: str, progress: Progress
) -> nn.Module:
    """`model` compiled for batches of `images` of each of `sizes`, by a pass over random pictures; its weights stay.

    Errors: TrainingError if the compiler fails.
    """
    torch._dynamo.config.recompile_limit = len(sizes) + 8  # it would go on uncompiled, and only log it
    progress.log(f"compiling for {counted(len(sizes), 'picture size')}")
    started = time.perf_counter()
    compiled: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        for size in sizes:
            try_step(compiled, device, precision, images=images, size=size)
    except Exception as exc:
        if is_out_of_memory(exc):
            raise
        raise TrainingError(
            f"torch.compile failed: {str(exc).strip().splitlines()[0][:200]}", hint="--set compile=off"
        ) from exc
    finally:
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        model.zero_grad(set_to_none=True)
    taken = time.perf_counter() - started
    progress.log(f"compiled in {taken:.0f} s, which the training time leaves out")
    return compiled


def eagerly(wanted: bool) -> AbstractContextManager[object]:
    """Within, a compiled model runs uncompiled, if that is wanted."""
    return torch.compiler.set_stance("force_eager") if wanted else nullcontext()


def try_step(model: nn.Module, device: torch.device, precision: str, *, images: int, size: int) -> None:
    """One forward and backward pass over random pictures, all of class 0."""
    inputs = torch.randn(images, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(images, dtype=torch.int64, device=device)
    with autocast(device, precision):
        logits = model.train()(inputs)
    functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether this is how torch says, on a GPU or a CPU, that memory ran out."""
    words = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(exc, (torch.OutOfMemoryError, MemoryError)) or any(word in str(exc) for word in words)


def batch_that_fits(model: nn.Module, device: torch.device, precision: str, *, too_many: int, size: int) -> int | None:
    """The largest halving of `too_many` pictures that a training step has memory for, by trying; None if none has."""
    images = too_many
    while images > 1:
        images //= 2
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            try_step(model, device, precision, images=images, size=size)
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
        else:
            return images
    return None
