"""What a process holds, as Linux tells: memory, descriptors, threads, and which children it has."""

from __future__ import annotations

import os
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def held(pid: int | None = None) -> int:
    """Bytes of memory that are a process's own (RssAnon); 0 if it is gone."""
    return _status(pid, "RssAnon")


def mapped(pid: int | None = None) -> int:
    """Bytes of files that a process has mapped and touched: the kernel takes them back when memory is short."""
    return _status(pid, "RssFile")


def resident(pid: int | None = None) -> int:
    """Bytes in memory, of either kind."""
    return _status(pid, "VmRSS")


def descriptors() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - names alone; one is the listing's own


def threads() -> int:
    """Of this process, as the kernel counts."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def family(pid: int) -> list[int]:
    """A process, its children and theirs."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        for path in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                waiting += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def processor_s() -> tuple[float, float]:
    """Seconds that the cores of this process have counted, and how many of these they worked, for whomever."""
    usable = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    # user nice system idle iowait irq softirq steal; what guests take is in user already
    ticks = [[int(word) for word in line[1:9]] for line in lines if line[0] in usable]
    total, idle = sum(map(sum, ticks)), sum(row[3] + row[4] for row in ticks)
    return total / os.sysconf("SC_CLK_TCK"), (total - idle) / os.sysconf("SC_CLK_TCK")


def mib(count: float) -> float:
    return round(count / 2**20, 2)


def _status(pid: int | None, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
