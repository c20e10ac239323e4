"""The pictures of the HTML report, as SVG that takes its colours from the page: light, dark or printed.

Every contender has a number, and every precision a shape, so that no picture needs colour to be read.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyres.bench.reports.tables import p50_s, throughput
from tinyres.bench.statistics import median, quantile
from tinyres.units import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tinyres.bench.results import Results, Row

WIDTH = 520
"""In the picture's own units; a phone shows them at three quarters of their size, a desk at one and a half times."""
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 38
SHAPES = {"fp32": "M-5,0A5,5,0,1,0,5,0A5,5,0,1,0,-5,0", "fp16": "M0,-6L6,5L-6,5Z", "bf16": "M-5,-5H5V5H-5Z"}
"""Marks by what is computed; int8 and all else is a rhombus."""
OTHER_SHAPE = "M0,-6L6,0L0,6L-6,0Z"
DASHES = {"fp32": "", "fp16": "6 3", "bf16": "2 3", "int8": "9 3 2 3"}
BINS = 72
LABEL_W, LABEL_H = 17, 12


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """A handful of round values within."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
                found = [step * 10.0**power for power in powers for step in steps]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) >= 3:
                    break
            return found
        span = (self.high - self.low) or 1.0
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next((times for times in (1, 2, 5) if span / (step * times) <= 5), 10)
        first = math.ceil(self.low / step - 1e-9)
        return [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def mark(row: Row, x: float = 0, y: float = 0) -> str:
    """A contender's shape in its colour."""
    return f'<path class="mark {_colour(row)}" transform="translate({x:.1f},{y:.1f})" d="{_shape(row)}"/>'


def pareto(results: Results, batch: int) -> str:
    """Latency against accuracy, with the line of those that no other beats in both."""
    rows = [row for row in results.measured if row.at(batch) is not None and row.accuracy is not None]
    if not rows:
        return ""
    times = {row.name: p50_s(row.at(batch)) for row in rows}  # type: ignore[arg-type]
    tops = {row.name: row.accuracy.top1 for row in rows}  # type: ignore[union-attr]
    base = tops.get(results.baseline)
    bars = {
        row.name: (base + row.difference[1], base + row.difference[2])
        for row in rows
        if base is not None and row.difference is not None and row.name != results.baseline
    }
    heights = [*tops.values(), *(end for bar in bars.values() for end in bar)]
    x, y = _log_axis(times.values()), _padded(heights)
    drawn = _axes(x, y, "median latency", milliseconds, "top-1", lambda v: f"{v:.1%}")
    drawn.append(f'<path class="frontier" d="{_steps(_frontier(times, tops), x, y)}"/>')
    labels = []
    for number, row in enumerate(results.measured, 1):
        if row.name not in times:
            continue
        at, up = x(times[row.name]), y(tops[row.name])
        if row.name in bars:
            low, high = (y(end) for end in bars[row.name])
            drawn.append(f'<path class="bar {_colour(row)}" d="M{at:.1f},{low:.1f}V{high:.1f}"/>')
        hint = f"{row.name}: {milliseconds(times[row.name])}, {tops[row.name]:.2%}"
        drawn.append(_hinted(mark(row, at, up), hint))
        labels.append((at, up, str(number)))
    drawn += _placed(labels, x.start, x.end)
    return _picture("latency against accuracy", drawn, 300)


def distributions(results: Results, batch: int) -> str:
    """How the latencies of every contender are spread, one under the other on one axis."""
    rows = [row for row in results.measured if row.at(batch) is not None]
    if not rows:
        return ""
    samples = {row.name: np.asarray(row.at(batch).samples_s) for row in rows}  # type: ignore[union-attr]
    ends = [float(np.quantile(values, share)) for values in samples.values() for share in (0.001, 0.995)]
    x = _log_axis(ends, left=8)
    edges = np.geomspace(x.low, x.high, BINS + 1)
    step, height = 40, 40 * len(rows) + TOP + BOTTOM
    drawn = _x_axis(x, height - BOTTOM, "latency of a run", milliseconds)
    for place, row in enumerate(rows):
        floor = TOP + step * (place + 1) - 4
        counts, _ = np.histogram(samples[row.name], edges)
        tops = floor - counts / max(counts.max(), 1) * (step - 18)
        outline = "".join(
            f"L{x(edges[at]):.1f},{top:.1f}L{x(edges[at + 1]):.1f},{top:.1f}" for at, top in enumerate(tops)
        )
        shape = f'<path class="ridge {_colour(row)}" d="M{x.start:.1f},{floor}{outline}L{x.end:.1f},{floor}Z"/>'
        number = results.measured.index(row) + 1
        middle, tail = median(samples[row.name].tolist()), quantile(samples[row.name].tolist(), 0.95)
        hint = f"{row.name}: p50 {milliseconds(middle)}" + (f", p95 {milliseconds(tail.value)}" if tail else "")
        drawn.append(_hinted(shape, hint))
        drawn.append(f'<path class="tick" d="M{x(middle):.1f},{floor + 3}V{floor - step + 20}"/>')
        if tail is not None and tail.value <= x.high:
            drawn.append(f'<path class="tick thin" d="M{x(tail.value):.1f},{floor + 3}V{floor - 8}"/>')
        drawn.append(_text(x.end, floor - step + 16, f"{number} {row.name}", "end name"))
    return _picture("latency distributions", drawn, height)


def throughput_curves(results: Results) -> str:
    """Images a second over batch sizes."""
    rows = [row for row in results.measured if sum(bool(found.blocks) for found in row.measurements) > 1]
    if not rows:
        return ""
    curves = {row.name: [(m.batch, throughput(m)) for m in row.measurements if m.blocks] for row in rows}
    points = [point for curve in curves.values() for point in curve]
    x = Axis(1, max(batch for batch, _ in points), LEFT + 8, WIDTH - RIGHT - 22, log=True)
    y = Axis(0, max(speed for _, speed in points) * 1.05, 320 - BOTTOM, TOP)
    drawn = _axes(x, y, "batch", str, "images/s", lambda v: f"{v:,.0f}", [float(2**n) for n in range(9)])
    labels = []
    for row in rows:
        curve = curves[row.name]
        line = "L".join(f"{x(batch):.1f},{y(speed):.1f}" for batch, speed in curve)
        dash = DASHES.get(row.precision.compute if row.precision else "", "")
        drawn.append(f'<path class="line {_colour(row)}" stroke-dasharray="{dash}" d="M{line}"/>')
        for batch, speed in curve:
            drawn.append(_hinted(mark(row, x(batch), y(speed)), f"{row.name}, batch {batch}: {speed:,.0f} images/s"))
        batch, speed = curve[-1]
        labels.append((x(batch) + 14, y(speed) + 10, str(results.measured.index(row) + 1)))
    drawn += _placed(labels, x.start, WIDTH)
    return _picture("throughput over batch size", drawn, 320)


def cold_start_bars(results: Results) -> str:
    """Import, load and first answer of every contender."""
    rows = [row for row in results.measured if row.cold]
    if not rows:
        return ""
    parts = {
        row.name: [median([getattr(cold, part) for cold in row.cold]) for part in ("import_s", "load_s", "first_s")]
        for row in rows
    }
    step = 34
    height = step * len(rows) + TOP + BOTTOM
    x = Axis(0, max(sum(part) for part in parts.values()) * 1.12, 8, WIDTH - RIGHT)
    drawn = _x_axis(x, height - BOTTOM, "seconds from the program's first line to its first answer", lambda v: f"{v:g}")
    for place, row in enumerate(rows):
        top, at = TOP + step * place, 0.0
        number = results.measured.index(row) + 1
        drawn.append(_text(8, top + 11, f"{number} {row.name}", "name"))
        for name, seconds in zip(("import", "load", "first"), parts[row.name], strict=True):
            wide = x(at + seconds) - x(at)
            bar = f'<rect class="{name} {_colour(row)}" x="{x(at):.1f}" y="{top + 15}" width="{wide:.1f}" height="13"/>'
            drawn.append(_hinted(bar, f"{row.name}, {name}: {seconds:.2f} s"))
            at += seconds
        drawn.append(_text(x(at) + 4, top + 26, f"{at:.2f} s", "value"))
    return _picture("cold start", drawn, height)


def _colour(row: Row) -> str:
    return html.escape(f"of-{row.backend}")


def _shape(row: Row) -> str:
    return SHAPES.get(row.precision.compute if row.precision else "", OTHER_SHAPE)


def _frontier(times: dict[str, float], tops: dict[str, float]) -> list[tuple[float, float]]:
    """Those that none beats in both, from the fastest on."""
    best, found = -1.0, []
    for name in sorted(times, key=lambda name: (times[name], -tops[name])):
        if tops[name] > best:
            best = tops[name]
            found.append((times[name], best))
    return found


def _steps(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    line = f"M{x(points[0][0]):.1f},{y.start:.1f}"
    for time, top in points:
        line += f"H{x(time):.1f}V{y(top):.1f}"
    return f"{line}H{x.end:.1f}"


def _log_axis(values: Iterable[float], left: float = LEFT) -> Axis:
    known = list(values)
    return Axis(min(known) / 1.15, max(known) * 1.15, left, WIDTH - RIGHT, log=True)


def _padded(values: Sequence[float], height: float = 300) -> Axis:
    low, high = min(values), max(values)
    room = max((high - low) * 0.15, 0.005)
    return Axis(max(0.0, low - room), min(1.0, high + room), height - BOTTOM, TOP)


def _axes(
    x: Axis,
    y: Axis,
    x_name: str,
    x_text: Callable[[float], str],
    y_name: str,
    y_text: Callable[[float], str],
    x_ticks: Sequence[float] = (),
) -> list[str]:
    drawn = _x_axis(x, y.start, x_name, x_text if not x_ticks else lambda v: f"{v:.0f}", x_ticks)
    for value in y.ticks():
        drawn.append(f'<path class="grid" d="M{x.start:.1f},{y(value):.1f}H{WIDTH - RIGHT}"/>')
        drawn.append(_text(LEFT - 6, y(value) + 4, y_text(value), "end"))
    drawn.append(_text(2, TOP - 1, y_name, "axis"))
    return drawn


def _x_axis(x: Axis, floor: float, name: str, text: Callable[[float], str], ticks: Sequence[float] = ()) -> list[str]:
    drawn = [f'<path class="floor" d="M{x.start:.1f},{floor}H{x.end:.1f}"/>']
    for value in [tick for tick in ticks if tick <= x.high] or x.ticks():
        drawn.append(f'<path class="grid" d="M{x(value):.1f},{TOP}V{floor}"/>')
        drawn.append(_text(x(value), floor + 15, text(value), "middle"))
    drawn.append(_text((x.start + x.end) / 2, floor + 32, name, "middle axis"))
    return drawn


def _placed(labels: Sequence[tuple[float, float, str]], left: float, right: float) -> list[str]:
    """Labels above or below their points, none over another."""
    taken: list[tuple[float, float]] = []
    drawn = []
    for at, up, text in sorted(labels):
        offsets = [sign * (10 + LABEL_H * level) for level in range(12) for sign in (-1, 1)]
        spots = [(min(max(at, left), right - 6), up + offset) for offset in offsets]
        free = (
            spot
            for spot in spots
            if all(abs(spot[0] - a) >= LABEL_W or abs(spot[1] - b) >= LABEL_H for a, b in taken) and spot[1] > TOP / 2
        )
        x, y = next(free, spots[0])
        taken.append((x, y))
        drawn.append(_text(x, y + 4, text, "middle number"))
    return drawn


def _hinted(drawn: str, hint: str) -> str:
    return f"<g>{drawn}<title>{html.escape(hint)}</title></g>"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _picture(name: str, drawn: Sequence[str], height: float) -> str:
    body = "".join(drawn)
    return f'<svg role="img" aria-label="{name}" viewBox="0 0 {WIDTH} {height:.0f}">{body}</svg>'
