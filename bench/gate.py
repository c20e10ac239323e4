"""Conditions that fail a bench, for continuous integration: `p50>5ms`, `openvino*:p95@32>40ms`, `accuracy<0.6`.

What was not measured fails too: a gate that is open when nothing is known guards nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tinyres.bench.reports.tables import latency, ratio_to, throughput
from tinyres.bench.statistics import median
from tinyres.errors import UsageError, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinyres.bench.against import Change
    from tinyres.bench.results import Blocks, Results, Row
    from tinyres.bench.statistics import Ratio

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
SHARE = {"": 1.0, "%": 0.01}
POINTS = {"%": 0.01}
"""As `export --max-accuracy-drop` takes them: as a share, 0.5 would be fifty of them."""
PLAIN = {"": 1.0}
EVERY = 0
"""In place of a batch size."""
WORDS = ("slower-than-baseline", "slower-than-before")
UNCOMPARED = "it is the baseline itself, for want of one in float32"
EXAMPLES = "for example 'p50>5ms', 'accuracy<0.60', 'openvino*:p95@32>40ms' or 'slower-than-baseline'"


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a row that a condition may be about."""

    units: dict[str, float]
    """What a bound may be given in."""
    of: Callable[[Row, int], float | None]
    """At a batch size; None if it was not measured."""
    over_all: bool = False
    """Without a batch size it is about all that was measured, not about the smallest: it is then given EVERY."""


def _percentile(share: float) -> Metric:
    def of(row: Row, batch: int) -> float | None:
        found = row.at(batch)
        exact = latency(found, share) if found is not None else None
        return exact.value if exact is not None else None

    return Metric(SECONDS, of)


def _disturbed(row: Row, batch: int) -> float | None:
    found: list[Blocks] = [measured for measured in row.measurements if batch in (EVERY, measured.batch)]
    if batch == EVERY:
        found += row.loads
    blocks = sum(len(one.kept) for one in found)
    return sum(one.disturbed for one in found) / blocks if blocks else None


def _throughput(row: Row, batch: int) -> float | None:
    found = row.at(batch)
    return throughput(found) if found is not None else None


METRICS = {
    "p50": _percentile(0.5),
    "p90": _percentile(0.9),
    "p95": _percentile(0.95),
    "p99": _percentile(0.99),
    "throughput": Metric(PLAIN, _throughput),
    "accuracy": Metric(SHARE, lambda row, _: row.accuracy.top1 if row.accuracy else None),
    "drop": Metric(POINTS, lambda row, _: -row.difference[0] if row.difference else None),
    "cold": Metric(SECONDS, lambda row, _: median([cold.total_s for cold in row.cold]) if row.cold else None),
    "memory": Metric(BYTES, lambda row, _: row.peak_memory_bytes),
    "size": Metric(BYTES, lambda row, _: row.artifact_bytes),
    "disturbed": Metric(SHARE, _disturbed, over_all=True),
}
PATTERN = re.compile(
    r"(?:(?P<rows>[^:<>]+):)?\s*(?P<metric>[a-z0-9]+)(?:@(?P<batch>[0-9]{1,9}))?"
    r"\s*(?P<sign>[<>])\s*(?P<bound>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z%]*)"
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One `--fail-if`."""

    text: str
    rows: str
    """A name, or a pattern with *; empty for all artifacts."""
    metric: str
    """Of METRICS, or one of WORDS."""
    batch: int | None
    """None for the smallest that was measured."""
    above: bool
    """It fails above the bound, not below it."""
    bound: float


def parse_condition(text: str) -> Condition:
    """Read a `--fail-if`. Errors: UsageError that says what is wrong with it."""
    rows, _, word = text.strip().rpartition(":")
    if word in WORDS:
        return Condition(text, rows, word, None, above=True, bound=0.0)
    match = PATTERN.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--fail-if {text!r} is no condition", hint=EXAMPLES)
    if match["metric"] not in METRICS:
        raise UsageError(f"--fail-if {text!r}: there is no {match['metric']!r}", hint=suggest(match["metric"], METRICS))
    units = METRICS[match["metric"]].units
    if match["unit"] not in units:
        shown = ", ".join(unit or "none" for unit in units)
        wrong = f"is not in {match['unit']}" if match["unit"] else "needs a unit"
        raise UsageError(f"--fail-if {text!r}: {match['metric']} {wrong}", hint=f"valid: {shown}")
    if units is SHARE and float(match["bound"]) * units[match["unit"]] > 1:
        raise UsageError(f"--fail-if {text!r}: {match['metric']} is a share, up to 1", hint=f"{match['bound']}% is one")
    return Condition(
        text,
        (match["rows"] or "").strip(),
        match["metric"],
        int(match["batch"]) if match["batch"] else None,
        above=match["sign"] == ">",
        bound=float(match["bound"]) * units[match["unit"]],
    )


def failures(
    results: Results,
    conditions: Sequence[Condition],
    changes: Sequence[Change] | None,
    before: Sequence[str] = (),
) -> list[str]:
    """What each condition that holds says, a line a row; empty if the bench passes.

    `changes` is to the earlier bench, None without one, and `before` who was measured then.
    Errors: UsageError if a condition needs one.
    """
    found = []
    for condition in conditions:
        if condition.metric == "slower-than-before" and changes is None:
            raise UsageError("--fail-if slower-than-before needs an earlier bench", hint="--against results.json")
        rows = [row for row in results.rows if _meant(condition, row)]
        if condition.metric == "slower-than-before" and not condition.rows:
            gone = set(before) - {row.name for row in (*rows, *results.measured)}
            found += [f"{condition.text}: {name}: measured before, and not now" for name in sorted(gone)]
        if not rows:
            found.append(f"{condition.text}: no contender of that name took part")
        for row in rows:
            said = _judged(condition, results, row, changes or ())
            found += [f"{condition.text}: {row.name}: {said}"] if said else []
    return found


def _meant(condition: Condition, row: Row) -> bool:
    """Without a name all artifacts that were measured or failed: neither the checkpoint, nor what is not here."""
    if condition.rows:
        return fnmatchcase(row.name, condition.rows)
    return row.proof != "reference" and row.status != "skipped"


def _judged(condition: Condition, results: Results, row: Row, changes: Sequence[Change]) -> str:
    """Why the row fails; empty if it does not."""
    if row not in results.measured:
        return f"not measured ({row.status}: {row.reason})" if row.reason else "not measured"
    if condition.metric == "slower-than-before":
        return _slower_than_before(results, row, changes)
    if condition.metric == "slower-than-baseline":
        return _slower_than_baseline(results, row)
    if condition.metric == "drop" and _is_uncompared(results, row):
        return UNCOMPARED
    metric = METRICS[condition.metric]
    batch = condition.batch or (EVERY if metric.over_all else next(iter(results.batches), 1))
    value = metric.of(row, batch)
    if value is None:
        return f"{condition.metric} was not measured, or on too few runs"
    fails = value > condition.bound if condition.above else value < condition.bound
    return f"{condition.metric} is {_shown(condition, value)}" if fails else ""


def _slower_than_before(results: Results, row: Row, changes: Sequence[Change]) -> str:
    ours = {change.batch: change.speedup for change in changes if change.name == row.name}
    return _slower({batch: ours.get(batch) for batch in results.batches}, "not in the earlier bench")


def _slower_than_baseline(results: Results, row: Row) -> str:
    if _is_uncompared(results, row):
        return UNCOMPARED
    if row.name == results.baseline:
        return ""
    ratios = {batch: ratio_to(row, results.row(results.baseline), batch) for batch in results.batches}
    return _slower(ratios, "not measured beside the baseline")


def _is_uncompared(results: Results, row: Row) -> bool:
    """Whether it is the baseline for want of a float32 one: then nothing says what it loses."""
    return row.name == results.baseline and (row.precision is None or row.precision.storage != "fp32")


def _slower(ratios: dict[int, Ratio | None], missing: str) -> str:
    """The batch sizes at which it is slower, or at which that is not known."""
    said = []
    for batch, ratio in ratios.items():
        if ratio is None:
            said.append(f"batch {batch}: {missing}")
        elif not math.isfinite(ratio.high):
            said.append(f"batch {batch}: too few rounds to tell")
        elif ratio.significant and ratio.value < 1:
            said.append(f"batch {batch}: {ratio.value:.2f} times as fast")
    return "; ".join(said)


def _shown(condition: Condition, value: float) -> str:
    """In the unit of the condition."""
    units = METRICS[condition.metric].units
    match = PATTERN.fullmatch(condition.text.strip())
    unit = match["unit"] if match else ""
    return f"{value / units[unit]:.4g}{' ' if unit and unit != '%' else ''}{unit}"
