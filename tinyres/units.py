"""Numbers with units as people read them, and the durations they write."""

from __future__ import annotations

import re

from tinyres.errors import UsageError

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration(seconds: float) -> str:
    """A length of time in the two largest units that matter: 45 s, 2 min 30 s, 12 min, 3 h 10 min, 5 days 2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 595:
        minutes, rest = divmod(round(seconds / 10) * 10, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"


def parse_duration(text: str) -> float:
    """Seconds from `90s`, `20m` or `1.5h`. Errors: UsageError unless it is positive and has a unit."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", text)
    if match is not None and not match[2] and float(match[1]) > 0:
        raise UsageError(f"{text!r} has no unit", hint=f"for example {match[1]}s or {match[1]}m")
    if match is None or match[2] not in _SECONDS or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is no length of time", hint="for example 90s, 20m or 1.5h")
    return float(match[1]) * _SECONDS[match[2]]


def counted(count: int, noun: str) -> str:
    """A count with its noun: 1 epoch, 1,000 epochs."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def milliseconds(seconds: float) -> str:
    """A latency with three digits that count: 0.412 ms, 31.2 ms, 1,203 ms."""
    value = seconds * 1e3
    if value >= 100:
        return f"{value:,.0f} ms"
    return f"{value:.3g} ms" if value >= 1 else f"{value:.3f} ms"


def size(count: float) -> str:
    """Bytes in binary units: 81.6 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def percent(share: float) -> str:
    """A share as a percentage with two decimals."""
    return f"{share * 100:.2f} %"
