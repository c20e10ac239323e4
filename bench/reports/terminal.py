"""The tables for a terminal: columns aligned, the less important ones left out where it is narrow."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tinyres.bench.reports import tables

if TYPE_CHECKING:
    from tinyres.bench.reports.tables import Table
    from tinyres.bench.results import Results

NARROW = 80
LEAST_FIRST: tuple[str, ...] = ("p90", "to baseline", "p99", "p95", "memory", "on disk", "import", "load", "first")
LEAST_FIRST += ("copy in", "copy out", "all, enqueued", "p50, 2", "p50, 4", "proof", "img/s")
"""In which order columns are left out until a table fits."""


def terminal(results: Results, width: int = NARROW) -> str:
    """The tables and notes in plain, aligned columns, `width` characters wide at most."""
    blocks = [tables.TOY.replace("`", "")] if results.data_kind == "shapes" else []
    shown = [tables.latencies(results, batch, intervals=False) for batch in results.batches]
    shown += [tables.on_devices(results), tables.throughputs(results), tables.loads(results)]
    shown.append(tables.cold_starts(results))
    blocks += [aligned(table, width) for table in shown if table.rows]
    blocks.append("\n".join(textwrap.fill(note, width, subsequent_indent="  ") for note in tables.notes(results)))
    return "\n\n".join(blocks)


def aligned(table: Table, width: int) -> str:
    """A table in columns; numbers to the right."""
    for column in LEAST_FIRST:
        if sum(_widths(table)) + 2 * (len(table.head) - 1) <= width:
            break
        if column in table.head:
            table = table.without(column)
    widths = _widths(table)
    lines = []
    for row in (table.head, *table.rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(wide) for cell, wide in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([table.title, *lines])


def _widths(table: Table) -> list[int]:
    return [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
