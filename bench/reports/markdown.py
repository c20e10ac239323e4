"""The report as Markdown, with all percentiles and intervals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tinyres.bench.reports import tables
from tinyres.harmless import shown as printable

if TYPE_CHECKING:
    from tinyres.bench.reports.tables import Table
    from tinyres.bench.results import Results

_MARKS = re.compile(
    r"[\\`*<>|!~#$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is a letter, as in channels_last
    r"|(?<!\w)\[|\[(?!\w+\](?![(\[:]))"  # tinyres[gpu] is no link; and ] is a mark only after one
    r"|&(?=#?\w+;)"
)
"""What Markdown acts on."""
_CODE = re.compile(r"((?<!`)`[^`]+`(?!`))")


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
    lines += [f"- {_note(note)}" for note in (*tables.notes(results), *tables.method(results))]
    return "\n".join([*lines, ""])


def _table(table: Table) -> list[str]:
    rows = [[_safe(cell) for cell in row] for row in (table.head, *table.rows)]
    marks = " --- | " + " | ".join("---:" for _ in table.head[1:])
    return [f"| {' | '.join(rows[0])} |", f"|{marks} |", *(f"| {' | '.join(cells)} |" for cells in rows[1:])]


def _note(text: str) -> str:
    """As `_safe`, but for what stands between two backticks, where Markdown acts on nothing."""
    parts = _CODE.split(_line(text))
    return "".join(part if _CODE.fullmatch(part) else _escaped(part) for part in parts)


def _safe(text: str) -> str:
    """One line of plain text, whatever it holds: names are whatever their owner chose."""
    return _escaped(_line(text))


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\g<0>", text)
