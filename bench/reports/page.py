"""The report as one HTML page: nothing is fetched, nothing runs; light or dark as the reader's system is."""

from __future__ import annotations

import html
from importlib import resources
from typing import TYPE_CHECKING

from tinyres.bench.reports import charts, tables

if TYPE_CHECKING:
    from tinyres.bench.reports.tables import Table
    from tinyres.bench.results import Results, Row

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A browser that follows it could not fetch anything even if a name smuggled in a tag."""
SHAPES = "Round: fp32; square: bf16; triangle: fp16; rhombus: int8, as computed."


def page(results: Results) -> str:
    """All of it."""
    title = f"Bench of {results.run}"
    first = results.batches[0] if results.batches else 1
    parts = [f"<h1>{_safe(title)}</h1>", f'<p class="soft">{_safe(_headline(results))}</p>']
    if results.data_kind == "shapes":
        parts.append(f'<p class="toy">{_safe(tables.TOY.replace("`", ""))}</p>')
    parts.append(
        _figure(
            "Latency and accuracy",
            charts.pareto(results, first),
            f"Batch {first}. Up and left is better; no contender beats those on the dashed line in both. Bars: the"
            f" paired 95 % interval of the difference to {results.baseline}. {SHAPES}",
            key=_key(results),
        )
    )
    parts += [_table(results, tables.latencies(results, batch, intervals=True)) for batch in results.batches]
    parts.append(_table(results, tables.on_devices(results)))
    parts.append(
        _figure(
            "Latency distributions",
            charts.distributions(results, first),
            f"All runs of batch {first} that count. The long stroke is the median, the short one the 95th percentile.",
        )
    )
    curves = charts.throughput_curves(results)
    parts.append(_figure("Throughput over batch size", curves, f"By medians. {SHAPES}", key=_key(results)))
    parts.append(_table(results, tables.throughputs(results)))
    parts.append(_table(results, tables.loads(results)))
    caption = "In a fresh process, files in the system's cache: import (pale), load (half), first answer (full)."
    parts.append(_figure("Cold start", charts.cold_start_bars(results), caption))
    parts.append(_table(results, tables.cold_starts(results)))
    parts.append(_table(results, tables.identities(results)))
    parts.append("<h2>Notes</h2>" + _list(tables.notes(results)))
    parts.append("<h2>Certificates</h2>" + "".join(map(_certificate, results.measured)))
    parts.append("<h2>How it was measured</h2>" + _list(tables.method(results)))
    style = resources.files("tinyres.bench.reports").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{_safe(title)}</title><style>\n{style}</style></head>\n<body>\n'
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _headline(results: Results) -> str:
    env = results.environment
    return f"{len(results.measured)} contenders, {env.gpu or env.cpu}, {results.created}"


def _figure(title: str, picture: str, caption: str, key: str = "") -> str:
    if not picture:
        return ""
    return f"<h2>{_safe(title)}</h2><figure>{picture}{key}<figcaption>{_safe(caption)}</figcaption></figure>"


def _key(results: Results) -> str:
    """Which number is which contender."""
    names = " ".join(f"<span>{_named(results, row.name)}</span>" for row in results.measured)
    return f'<p class="key">{names}</p>'


def _table(results: Results, table: Table) -> str:
    if not table.rows:
        return ""
    title = table.title[:1].upper() + table.title[1:]
    head = "".join(f"<th>{_safe(cell)}</th>" for cell in table.head)
    lines = []
    for row in table.rows:
        kind = ' class="baseline"' if row[0] == results.baseline else ""
        cells = [f"<td>{_named(results, row[0])}</td>"]
        cells += [_cell(name, cell) for name, cell in zip(table.head[1:], row[1:], strict=True)]
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    body = "".join(lines)
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>{_safe(title)}</h2><div class="scroll">{whole}</div>'


def _named(results: Results, name: str) -> str:
    """A contender with its number and mark in the pictures."""
    number = next((at for at, row in enumerate(results.measured, 1) if row.name == name), None)
    if number is None:
        return _safe(name)
    mark = charts.mark(results.measured[number - 1])
    return f'<svg class="key" viewBox="-7 -7 14 14" aria-hidden="true">{mark}</svg> {number} {_safe(name)}'


def _cell(column: str, text: str) -> str:
    """A value, its interval on a line of its own."""
    value, bracket, rest = text.partition(" (")
    if column == "where":
        return f'<td class="wide">{_safe(text)}</td>'
    under = f'<span class="range">{_safe(rest[:-1])}</span>' if bracket else ""
    return f"<td>{_safe(value)}{under}</td>"


def _certificate(row: Row) -> str:
    if row.proof == "reference":
        said = "The checkpoint itself, judged beside the rest."
        return f"<details><summary>{_safe(row.name)}: reference</summary><p>{said}</p>{_hash(row)}</details>"
    marks = {True: "passed", False: "failed", None: "not judged"}
    levels = _list([f"{level.name}: {marks[level.passed]}; {level.detail}" for level in row.levels])
    return f"<details><summary>{_safe(row.name)}: {_safe(row.proof)}</summary>{levels}{_hash(row)}</details>"


def _hash(row: Row) -> str:
    return f"<p>{_safe(row.artifact)}, SHA-256 <code>{_safe(row.artifact_sha256)}</code></p>"


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{_safe(line)}</li>" for line in lines) + "</ul>"


def _safe(text: str) -> str:
    return html.escape(text)
