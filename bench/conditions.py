"""Whether the machine was left alone during a block: what else ran, how fast its clock was, how hot it was.

It judges by what lies outside the contender, never by its own times: a block thrown out for being slow would make the
rest look steadier than it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

OTHERS_SHARE = 0.10
"""Of the cores' time, used by other processes: more than that is a disturbance."""
STOLEN_SHARE = 0.02
"""Of the cores' time, that the hypervisor gave to others."""
LEAST_OTHERS_S, LEAST_STOLEN_S = 0.06, 0.025
"""Less than these is the rounding of counters that tick a hundred times a second."""
CLOCK_SHARE = 0.10
"""By which the clock may differ from the middle of all blocks."""
LEAST_READINGS = 5
"""Before so many, what is usual is not known."""
SPIN, SPIN_LIMIT_S = 20_000, 0.03
"""Turns of a loop; it is repeated so long at most until it is as fast as usual."""
GPU_FIELDS = ("clocks.sm", "temperature.gpu", "memory.used", "clocks_throttle_reasons.active")
GPU_SLOWED = 0x8 | 0x20 | 0x40 | 0x80
"""nvmlClocksThrottleReasons: hardware slowdown, software and hardware thermal, power brake (NVML's nvml.h)."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """What nvidia-smi says of the first GPU."""

    clock_mhz: float
    temperature_c: float
    memory_bytes: int
    """Used on the device, by all processes."""
    slowed: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine's counters at a moment. None where the system does not tell."""

    at_s: float
    busy_s: float | None
    """Of all cores together, all processes."""
    stolen_s: float | None
    own_s: float
    """Of the contender and of this process."""
    throttled: int | None
    """How often a core was slowed down for its heat."""
    spin_s: float
    """A fixed piece of arithmetic, which takes longer on a slower clock."""
    gpu: GpuReading | None


@dataclass(slots=True)
class Observer:
    """Reads the machine before and after blocks, and remembers what is usual."""

    cores: int
    watches_gpu: bool
    spins_s: list[float] = field(default_factory=list)
    gpu_clocks_mhz: dict[str, list[float]] = field(default_factory=dict)
    """By contender: each keeps the GPU as busy as it can."""

    def read(self, process: int) -> Reading:
        """The counters now; `process` is the contender's."""
        busy, stolen = _processor_times()
        own = _process_seconds(process) + time.process_time() + sum(os.times()[2:4])  # nvidia-smi is a child of ours
        gpu = read_gpu() if self.watches_gpu else None
        usual_s = statistics.median(self.spins_s) if self.spins_s else 0.0
        return Reading(time.monotonic(), busy, stolen, own, _throttled(), _spin(usual_s), gpu)

    def disturbance(self, before: Reading, after: Reading, *, on_gpu: str = "") -> str:
        """What disturbed the block between two readings; empty if nothing is known to have.

        `on_gpu` is the contender, if it runs there.
        """
        self.spins_s.append(after.spin_s)
        available = (after.at_s - before.at_s) * self.cores
        found = []
        if before.busy_s is not None and after.busy_s is not None:
            others = after.busy_s - before.busy_s - (after.own_s - before.own_s)
            if others > max(OTHERS_SHARE * available, LEAST_OTHERS_S):
                found.append(f"other processes took {others / available:.0%} of the processor")
        if before.stolen_s is not None and after.stolen_s is not None:
            stolen = after.stolen_s - before.stolen_s
            if stolen > max(STOLEN_SHARE * available, LEAST_STOLEN_S):
                found.append(f"the hypervisor took {stolen / available:.0%} of the processor")
        if before.throttled is not None and after.throttled is not None and after.throttled > before.throttled:
            found.append("the processor was slowed down for its heat")
        if (change := _unusual(self.spins_s)) is not None:
            found.append(f"the processor's clock was {1 / change - 1:+.0%} off the usual")
        if on_gpu and after.gpu is not None:
            clocks = self.gpu_clocks_mhz.setdefault(on_gpu, [])
            clocks.append(after.gpu.clock_mhz)
            if after.gpu.slowed:
                found.append(f"the GPU was slowed down at {after.gpu.temperature_c:.0f} degrees")
            if (change := _unusual(clocks)) is not None:
                found.append(f"the GPU's clock was {change - 1:+.0%} off the usual")
        return "; ".join(found)


def _unusual(values: list[float]) -> float | None:
    """The newest over the middle of all, if they differ by more than CLOCK_SHARE."""
    if len(values) <= LEAST_READINGS:
        return None
    change = values[-1] / statistics.median(values)
    return change if abs(change - 1) > CLOCK_SHARE else None


def _processor_times() -> tuple[float | None, float | None]:
    """Seconds that our cores together were busy, and that the hypervisor gave to others, since the system started.

    Of the cores that this process may use: on a large host those of others are none of our business.
    """
    if sys.platform in {"win32", "darwin"}:
        return None, None
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    times = [[int(value) for value in line.split()[1:9]] for line in lines if line.split()[0] in names]
    if not times:
        return None, None
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _wait, irq, softirq, steal = (sum(column) / tick for column in zip(*times, strict=True))
    return user + nice + system + irq + softirq, steal


def _process_seconds(process: int) -> float:
    """Processor time of a process, all its threads."""
    if sys.platform == "win32":
        return 0.0
    try:
        # The name in brackets may hold spaces; utime and stime are the 12th and 13th field after it.
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _throttled() -> int | None:
    counts = []
    for path in Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count"):
        with contextlib.suppress(OSError, ValueError):
            counts.append(int(path.read_text(encoding="ascii")))
    return sum(counts) if counts else None


def _spin(usual_s: float) -> float:
    """The shortest of several: what interrupts a loop makes it longer, a slower clock makes all of them so.

    Threads of a library that spin on for a while after its work share a core with this; hence the patience.
    """
    began, shortest = time.perf_counter(), float("inf")
    while True:
        started = time.perf_counter()
        for _ in range(SPIN):
            pass
        ended = time.perf_counter()
        shortest = min(shortest, ended - started)
        if shortest <= usual_s * (1 + CLOCK_SHARE / 2) or ended - began > SPIN_LIMIT_S:
            return shortest


def read_gpu() -> GpuReading | None:
    """What nvidia-smi says; None where it is not installed or does not answer."""
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    asked = [program, f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(asked, capture_output=True, encoding="utf-8", timeout=10, check=True).stdout
        clock, temperature, memory, reasons = (word.strip() for word in answer.splitlines()[0].split(","))
        slowed = bool(int(reasons, 16) & GPU_SLOWED)
        return GpuReading(float(clock), float(temperature), int(float(memory) * 2**20), slowed)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
