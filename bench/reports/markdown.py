"""The report as Markdown, with all percentiles and intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyres.bench.reports import tables

if TYPE_CHECKING:
    from tinyres.bench.reports.tables import Table
    from tinyres.bench.results import Results


def markdown(results: Results) -> str:
    """All of it."""
    lines = [f"# Bench of {_safe(results.run)}", ""]
    if results.data_kind == "shapes":
        lines += [tables.TOY, ""]
    shown = [tables.latencies(results, batch, intervals=True) for batch in results.batches]
    shown += [tables.on_devices(results), tables.throughputs(results), tables.loads(results)]
    shown += [tables.cold_starts(results), tables.identities(results)]
    for table in shown:
        if table.rows:
            lines += [f"## {table.title[:1].upper()}{table.title[1:]}", "", *_table(table), ""]
    lines += [f"- {_safe(note)}" for note in (*tables.notes(results), *tables.method(results))]
    return "\n".join([*lines, ""])


def _table(table: Table) -> list[str]:
    rows = [[_safe(cell).replace("|", "\\|") for cell in row] for row in (table.head, *table.rows)]
    marks = " --- | " + " | ".join("---:" for _ in table.head[1:])
    return [f"| {' | '.join(rows[0])} |", f"|{marks} |", *(f"| {' | '.join(cells)} |" for cells in rows[1:])]


def _safe(text: str) -> str:
    """One line without tags: names are whatever their owner chose."""
    return " ".join(text.split("\n")).replace("<", "\\<")
