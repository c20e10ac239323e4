"""What the reports show, as tables of text. It measures nothing, and draws nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres.bench.statistics import Quantile, Ratio, median, quantile, speedup
from tinyres.units import milliseconds, size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinyres.bench.results import Blocks, Measurement, Results, Row

CLIENTS = (1, 2, 4, 8)
"""Asked at once, one picture each."""
TOY = "Measured on the drawn `shapes` data set: a toy, no evidence about real pictures."
ENOUGH_OF_BEST = 0.95
"""Of the best throughput: the smallest batch that reaches it is as good, and answers sooner."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text under headings."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def without(self, column: str) -> Table:
        """The same, one column less."""
        at = self.head.index(column)
        cut = [row[:at] + row[at + 1 :] for row in (self.head, *self.rows)]
        return Table(self.title, cut[0], cut[1:])


def latencies(results: Results, batch: int, *, intervals: bool) -> Table:
    """Every contender that was measured at `batch`."""

    def at(share: float) -> Callable[[Row, Measurement], str]:
        return lambda _, found: percentile(found, share, intervals=intervals)

    columns: dict[str, Callable[[Row, Measurement], str]] = {
        "contender": lambda row, _: row.name,
        "p50": at(0.5),
        "ratio": lambda row, found: _ratio(results, row, found, intervals=intervals),
        "p90": at(0.9),
        "p95": at(0.95),
        "p99": at(0.99),
        "img/s": lambda _, found: f"{throughput(found):,.0f}",
        "top-1": lambda row, _: _top1(row, intervals=intervals),
        "to baseline": lambda row, _: _difference(results, row),
        "proof": lambda row, _: "-" if row.proof == "reference" else row.proof,
    }
    rows = [
        tuple(cell(row, found) for cell in columns.values())
        for row in results.measured
        if (found := row.at(batch)) is not None
    ]
    return Table(f"batch {batch}", tuple(columns), rows)


def ratio_to(row: Row, other: Row | None, batch: int) -> Ratio | None:
    """How many times faster `row` is than `other`, over the rounds that both have; None without any."""
    ours, theirs = row.at(batch), other.at(batch) if other is not None else None
    if ours is None or theirs is None:
        return None
    shared = sorted(ours.kept.keys() & theirs.kept.keys())
    if not shared:
        return None
    return speedup([ours.kept[number].samples_ns for number in shared], [theirs.kept[n].samples_ns for n in shared])


def latency(found: Blocks, share: float) -> Quantile | None:
    """A percentile in seconds; None where the samples do not carry it.

    The median is the middle of the rounds' medians, between the least and the greatest of them: one process differs
    from the next by more than its runs among themselves. Of the tails, all runs together are what there is.
    """
    if share != 0.5:
        return quantile(found.samples_s, share)
    rounds = [median(block.samples_ns) / 1e9 for block in found.kept.values()]
    return Quantile(median(rounds), min(rounds), max(rounds)) if rounds else None


def p50_s(found: Blocks) -> float:
    """The middle of the rounds' medians, in seconds. There must be one."""
    exact = latency(found, 0.5)
    return exact.value if exact is not None else float("nan")


def throughput(found: Measurement) -> float:
    """Images a second, by the median."""
    return found.batch / p50_s(found)


def percentile(found: Blocks, share: float, *, intervals: bool) -> str:
    """A percentile in text; "too few" where the samples do not carry it."""
    exact = latency(found, share)
    if exact is None:
        return "too few"
    between = f" ({milliseconds(exact.low)} to {milliseconds(exact.high)})" if intervals else ""
    return milliseconds(exact.value) + between


def _ratio(results: Results, row: Row, found: Measurement, *, intervals: bool) -> str:
    if row.name == results.baseline:
        return "1"
    ratio = ratio_to(row, results.row(results.baseline), found.batch)
    if ratio is None:
        return "-"
    if not ratio.significant:
        return "n.s."
    return f"{ratio.value:.2f}x" + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if intervals else "")


def _top1(row: Row, *, intervals: bool) -> str:
    if row.accuracy is None:
        return "-"
    between = f" ({row.accuracy.low:.1%} to {row.accuracy.high:.1%})" if intervals else ""
    return f"{row.accuracy.top1:.1%}{between}"


def _difference(results: Results, row: Row) -> str:
    """In points of top-1, as an interval."""
    if row.name == results.baseline or row.difference is None:
        return "-"
    _, low, high = row.difference
    return f"{low * 100:+.2f}..{high * 100:+.2f}"


def best_batches(row: Row) -> tuple[Measurement, Measurement] | None:
    """The batch size with the highest throughput, and the smallest that comes close to it; None without any."""
    found = [measured for measured in row.measurements if measured.blocks]
    if not found:
        return None
    best = max(found, key=throughput)
    return best, next(one for one in found if throughput(one) >= ENOUGH_OF_BEST * throughput(best))


def throughputs(results: Results) -> Table:
    """Images a second over batch sizes."""
    rows = []
    for row in results.measured:
        best, enough = best_batches(row) or (None, None)
        if best is not None and enough is not None:
            rows.append((row.name, f"{throughput(best):,.0f}", str(best.batch), str(enough.batch)))
    return Table("throughput", ("contender", "best img/s", "at batch", "95 % of it from"), rows)


def loads(results: Results) -> Table:
    """Latency under load: the median and the tail, and the answers a second."""
    counts = sorted({load.clients for row in results.measured for load in row.loads})
    rows = []
    for row in results.measured:
        by_count = {load.clients: load for load in row.loads if load.blocks}
        if by_count:
            last = by_count[max(by_count)]
            cells = (percentile(by_count[n], 0.5, intervals=False) if n in by_count else "-" for n in counts)
            rows.append((row.name, *cells, percentile(last, 0.95, intervals=False), f"{last.per_second:,.0f}"))
    most = counts[-1] if counts else 0
    head = ("contender", *(f"p50, {count}" for count in counts), f"p95, {most}", "answers/s")
    return Table("clients at once, one picture each", head, rows)


def cold_starts(results: Results) -> Table:
    """The way to the first answer, the middle of several fresh processes, and what it takes up."""
    rows = []
    for row in results.rows:
        if row.status == "ok" and row.cold:
            parts = [[cold.import_s for cold in row.cold], [cold.load_s for cold in row.cold]]
            parts += [[cold.first_s for cold in row.cold], [cold.total_s for cold in row.cold]]
            held = [size(taken) if taken else "-" for taken in (row.peak_memory_bytes, row.device_memory_bytes)]
            rows.append((row.name, *(f"{median(part):.2f} s" for part in parts), size(row.artifact_bytes), *held))
    head = ("contender", "import", "load", "first", "all", "on disk", "memory", "on GPU")
    table = Table("cold start", head, rows)
    return table if any(row.device_memory_bytes for row in results.rows) else table.without("on GPU")


def on_devices(results: Results) -> Table:
    """GPU time alone, by part."""
    parts = list(dict.fromkeys(part for row in results.measured for m in row.measurements for part in m.device_ns))
    rows = []
    for row in results.measured:
        for found in row.measurements:
            if found.device_ns:
                cells = (
                    milliseconds(median(found.device_ns[part]) / 1e9) if part in found.device_ns else "-"
                    for part in parts
                )
                rows.append((row.name, str(found.batch), *cells))
    return Table("on the device alone", ("contender", "batch", *parts), rows)


def identities(results: Results) -> Table:
    """What each really is: its arithmetic, what its library says, its proof and how it answers here."""
    rows = []
    for row in results.measured:
        same = f"{row.parity.same:,} of {row.parity.images:,}" if row.parity else "-"
        error = f"{row.parity.error:.2%} (limit {row.parity.limit:.2%})" if row.parity else "-"
        if row.name == results.baseline:
            same = error = "-"
        kind = str(row.precision)
        rows.append((row.name, kind, f"{row.device}; {row.evidence}", row.proof, same, error))
    return Table("what ran", ("contender", "precision", "where", "proof", "same class", "difference"), rows)


def left_out(results: Results) -> list[tuple[str, str]]:
    """Contenders without figures, and why; those with the same reason in one."""
    by_reason: dict[str, list[str]] = {}
    for row in results.rows:
        if row.status != "ok":
            by_reason.setdefault(f"{row.status}: {row.reason}", []).append(row.name)
    return [(", ".join(names), reason) for reason, names in by_reason.items()]


def notes(results: Results) -> list[str]:
    """What a reader must know beside the tables."""
    found = [f"{name}: {reason}" for name, reason in left_out(results)]
    found += [f"{row.name}: {row.warning}." for row in results.rows if row.warning and row.status == "ok"]
    differing = [f"{row.name} ({row.precision})" for row in results.measured if row.precision and row.precision.differs]
    if differing:
        found.append(f"Computed in another precision than stored: {', '.join(differing)}.")
    if results.interrupted:
        found.append("Interrupted: some contenders and batch sizes have fewer blocks than the rest, or none.")
    if results.baseline:
        found.append(f"The ratio is to {results.baseline}; n.s.: not significant.")
    judged = next((row.accuracy for row in results.measured if row.accuracy), None)
    if judged:
        found.append(
            f"Top-1 on {judged.images} images of {results.split}; the 95 % interval of {judged.top1:.1%} is"
            f" {judged.low:.1%} to {judged.high:.1%}. To baseline: paired, in points, 95 %."
        )
    every = [m for row in results.measured for m in (*row.measurements, *row.loads)]
    repeated, disturbed = sum(one.repeated for one in every), sum(one.disturbed for one in every)
    blocks = sum(len(one.kept) for one in every)
    if repeated or disturbed:
        reasons = common_disturbances(every)
        found.append(f"Of {blocks} blocks {repeated} were repeated and {disturbed} count though disturbed: {reasons}.")
    else:
        found.append(f"None of {blocks} blocks was disturbed.")
    served = {load.clients for row in results.measured for load in row.loads}
    if missing := [str(count) for count in CLIENTS if count not in served]:
        found.append(f"Not measured, for lack of time: {', '.join(missing)} clients at once.")
    if restless := [row.name for row in results.measured if not all(one.steady for one in row.measurements)]:
        found.append(f"Not steady when its warm-up ended: {', '.join(restless)}.")
    return found


def common_disturbances(series: Sequence[Blocks]) -> str:
    """The kinds of disturbance, without their figures."""
    found = [part for one in series for block in one.blocks for part in block.disturbed.split("; ") if part]
    return ", ".join(dict.fromkeys(part.partition(" took ")[0].partition(" was ")[0] for part in found))


def rounds_of(results: Results) -> int:
    """How many rounds the batch sizes that were asked for have."""
    found = [found for row in results.measured for batch in results.batches if (found := row.at(batch)) is not None]
    return max((len(one.kept) for one in found), default=0)


def method(results: Results) -> list[str]:
    """How it was measured, where and with what."""
    env = results.environment
    packages = ", ".join(f"{name} {version}" for name, version in env.packages.items())
    cores = f" on cores {', '.join(map(str, results.affinity))}" if results.affinity else ""
    gpu = f"; {env.gpu}" if env.gpu else ""
    return [
        f"Latency: {results.scope}; fresh processes in each of {rounds_of(results)} rounds, in turns;"
        f" {results.threads} threads each{cores}; TF32 {results.tf32}.",
        "In brackets: of p50 the least and greatest of the rounds' medians; of other percentiles 95 % intervals of"
        " these runs, taken as independent; of ratios 99 %, over the rounds; of top-1 95 %.",
        f"{env.cpu}, {env.cores} cores, {', '.join(env.instruction_sets)}{gpu}; {env.os}, Python {env.python};"
        f" {packages}.",
        f"`{results.command}`, {results.created}, {results.seconds:.0f} s.",
    ]
