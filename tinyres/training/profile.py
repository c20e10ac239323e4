"""Where a training step's time goes, and what share of the device's peak it reaches. Nothing of it is kept."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile
from torch.utils.flop_counter import FlopCounterMode

from tinyres.schedules import picture_size
from tinyres.training.compute import try_step
from tinyres.training.trainer import Trainer
from tinyres.units import size

if TYPE_CHECKING:
    from tinyres.progress import Progress
    from tinyres.training.launch import Started

STEPS = 10
WARM_UP_S = 10.0
"""Fewer steps are looked at where STEPS take longer."""
OPERATIONS = 8
MATRIX = 2048
"""Side of the product that stands for a CPU's peak; a GPU gets four times the side."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a step."""

    name: str
    ms: float
    """A step, on the device where it has one."""
    share: float
    """Of a step's time, 0..1."""


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Where the time of a training step goes."""

    device: str
    precision: str
    compiled: bool
    batch: int
    size: int
    """Of the pictures, in pixels."""
    steps: int
    step_ms: float
    """Without the profiler."""
    images_per_second: float
    parts: tuple[Part, ...]
    """data, forward, backward, update, sums: one after the other."""
    operations: tuple[Part, ...]
    """The most expensive ones of PyTorch, in their own time."""
    tflops: float
    """10**12 floating-point operations a second, of convolutions and matrix products, in the steps."""
    peak_tflops: float
    """The same of one large matrix product on this device in this precision, measured."""
    peak_share: float
    peak_memory_bytes: int | None
    """Of a GPU, at most allocated at once in the steps; None on a CPU."""


def profile(started: Started, *, progress: Progress) -> StepProfile:
    """Run some steps of a run's training at full picture size, and look at them. Errors: as training."""
    trainer = Trainer(started.run, started.config, started.dataset, start=started.start, progress=progress)
    recipe = trainer.recipe
    trainer.prepare()
    steps = images = 0
    deadline = time.perf_counter() + WARM_UP_S
    while steps < STEPS and (steps < 1 or time.perf_counter() < deadline):
        images = _step(trainer)
        _wait(trainer.device)
        steps += 1
    progress.log(f"looking at {steps} steps, three times")
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    started_at = time.perf_counter()
    for _ in range(steps):
        _step(trainer)
    _wait(trainer.device)
    step_s = (time.perf_counter() - started_at) / steps
    memory = torch.cuda.max_memory_allocated(trainer.device) if trainer.device.type == "cuda" else None
    parts = _phases(trainer, steps)
    operations = _operations(trainer, steps)

    side = picture_size(recipe, recipe.epochs - 1)
    flops = _flops_of_step(trainer, images=images, size=side)
    peak = measure_peak(trainer.device, trainer.precision)
    reached = flops / step_s / 1e12
    compute = trainer.compute
    return StepProfile(
        device=compute.device if compute else trainer.device.type,
        precision=trainer.precision,
        compiled=bool(compute and compute.compiled),
        batch=images,
        size=side,
        steps=steps,
        step_ms=step_s * 1e3,
        images_per_second=images / step_s,
        parts=parts,
        operations=operations,
        tflops=reached,
        peak_tflops=peak,
        peak_share=reached / peak,
        peak_memory_bytes=memory,
    )


def describe(found: StepProfile) -> str:
    """The profile for people."""
    how = f"{found.precision}{', compiled' if found.compiled else ''}"
    lines = [
        f"{found.device}, {how}: {found.step_ms:.1f} ms a step of {found.batch} pictures of {found.size}x{found.size},"
        f" {found.images_per_second:,.0f} images/s",
        f"{found.tflops:.2f} TFLOP/s, {found.peak_share:.0%} of a large matrix product's {found.peak_tflops:.2f} here",
        *([f"{size(found.peak_memory_bytes)} of GPU memory at most"] if found.peak_memory_bytes is not None else []),
        "where a step goes:",
    ]
    lines += [f"  {part.name:32}{part.ms:9.1f} ms {part.share:6.1%}" for part in found.parts]
    lines.append("the most expensive operations:")
    lines += [f"  {part.name[:32]:32}{part.ms:9.1f} ms {part.share:6.1%}" for part in found.operations]
    return "\n".join(lines)


def measure_peak(device: torch.device, precision: str, *, rounds: int = 5) -> float:
    """10**12 operations a second of one large matrix product: the best of `rounds`."""
    side = MATRIX * (4 if device.type == "cuda" else 1)
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = float("inf")
    for _ in range(rounds + 1):
        _wait(device)
        started = time.perf_counter()
        matrix @ matrix
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best / 1e12


def _step(trainer: Trainer) -> int:
    """A step of a whole batch at full picture size: the first of the last epoch, every time."""
    trainer.step = (trainer.recipe.epochs - 1) * trainer.batches.per_epoch
    return trainer.train_step()


def _phases(trainer: Trainer, steps: int) -> tuple[Part, ...]:
    """The parts of a step by the clock, waiting for the device between them."""
    seconds: dict[str, float] = {}
    running: list[tuple[str, float]] = []

    def turn(name: str) -> None:
        _wait(trainer.device)
        now = time.perf_counter()
        if running:
            before, since = running.pop()
            seconds[before] = seconds.get(before, 0.0) + now - since
        running.append((name, now))

    trainer.on_phase = turn
    for _ in range(steps):
        _step(trainer)
        turn("")
    trainer.on_phase = lambda _: None
    seconds.pop("", None)
    total = sum(seconds.values())
    return tuple(Part(name, spent / steps * 1e3, spent / total) for name, spent in seconds.items())


def _operations(trainer: Trainer, steps: int) -> tuple[Part, ...]:
    """The operations with the most time of their own, on the device where they run on one."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports on stderr that a CPU is no GPU
    on_gpu = trainer.device.type == "cuda"
    with torch_profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
        for _ in range(steps):
            _step(trainer)
        _wait(trainer.device)
    events = seen.key_averages()
    if on_gpu:  # the kernels alone: the operations that launched them carry the same time again
        kernels = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
        spent = {event.key: event.self_device_time_total for event in kernels}
    else:
        spent = {event.key: event.self_cpu_time_total for event in events}
    total = sum(spent.values()) or 1.0
    most = sorted(spent, key=lambda name: -spent[name])[:OPERATIONS]
    return tuple(Part(name, spent[name] / steps / 1e3, spent[name] / total) for name in most)


def _flops_of_step(trainer: Trainer, *, images: int, size: int) -> int:
    with FlopCounterMode(display=False) as counter:
        try_step(trainer.model, trainer.device, trainer.precision, images=images, size=size)
    return int(counter.get_total_flops())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
