"""Results as tables, in Markdown and for a terminal. It measures and decides nothing."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tinyres import records
from tinyres.bench.statistics import median, quantile, speedup
from tinyres.files import write_text
from tinyres.units import milliseconds, size

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.bench.results import Measurement, Results, Row

TOY = "Measured on the drawn `shapes` data set: a toy, no evidence about real pictures."


def write_reports(folder: Path, results: Results) -> list[Path]:
    """Write results.json and results.md into `folder`; return the paths. Errors: StorageError."""
    records.save(folder / "results.json", results)
    write_text(folder / "results.md", markdown(results))
    return [folder / "results.json", folder / "results.md"]


def markdown(results: Results) -> str:
    """The whole report as Markdown."""
    env = results.environment
    packages = ", ".join(f"{name} {version}" for name, version in env.packages.items())
    machine = f"{env.cpu}, {env.cores} cores, {', '.join(env.instruction_sets)}; {env.os}"
    lines = [f"# Bench of {results.run}", ""]
    if results.data_kind == "shapes":
        lines += [TOY, ""]
    for batch in batches_of(results):
        lines += [f"## Batch {batch}", "", *_markdown_table(table(results, batch, intervals=True)), ""]
    lines += [f"- {note}" for note in notes(results)]
    lines += [
        f"- Latency: {results.scope}; {results.threads} threads each; one process a contender, blocks in turns.",
        "- In brackets: 95 % intervals of percentiles, whatever the distribution; 99 % of ratios, over the rounds.",
        f"- {machine}, Python {env.python}; {packages}.",
        f"- `{results.command}`, {results.created}.",
        "",
    ]
    return "\n".join(lines)


def batches_of(results: Results) -> list[int]:
    """The batch sizes measured."""
    return sorted({measured.batch for row in results.rows for measured in row.measurements})


def find_baseline(results: Results) -> Row | None:
    """What the others are compared with: the checkpoint, else the first in float32, else the first."""
    rows = [row for row in results.rows if row.status == "ok"]
    reference = [row for row in rows if row.proof == "reference"]
    floats = [row for row in rows if row.precision is not None and row.precision.storage == "fp32"]
    return next(iter([*reference, *floats, *rows]), None)


def table(results: Results, batch: int, *, intervals: bool) -> list[tuple[str, ...]]:
    """Headings and one line of cells for every contender that was measured at `batch`."""
    compared = find_baseline(results)
    baseline = _at(compared, batch) if compared else None
    shares = (0.5, 0.9, 0.95, 0.99) if intervals else (0.5, 0.95)
    names = [f"p{share * 100:.0f}" for share in shares]
    rows: list[tuple[str, ...]] = [("contender", *names, "img/s", "ratio", "top-1", "proof")]
    for row in results.rows:
        measured = _at(row, batch)
        if row.status != "ok" or measured is None:
            continue
        samples = measured.samples_s
        accuracy = f"{row.accuracy.top1:.1%}" if row.accuracy else "-"
        rows.append(
            (
                row.name,
                *(_percentile(samples, share, intervals=intervals) for share in shares),
                f"{batch / median(samples):,.0f}",
                "1" if measured is baseline else _ratio(measured, baseline, intervals=intervals),
                accuracy,
                "-" if row.proof == "reference" else row.proof,
            )
        )
    return rows


def _percentile(samples: list[float], share: float, *, intervals: bool) -> str:
    found = quantile(samples, share)
    if found is None:
        return "too few" if share > 0.5 else milliseconds(median(samples))
    between = f" ({milliseconds(found.low)} to {milliseconds(found.high)})" if intervals else ""
    return milliseconds(found.value) + between


def _ratio(measured: Measurement, baseline: Measurement | None, *, intervals: bool) -> str:
    if baseline is None:
        return "-"
    ratio = speedup(_seconds(measured), _seconds(baseline))
    if not ratio.significant:
        return "n.s."
    return f"{ratio.value:.2f}x" + (f" ({ratio.low:.2f} to {ratio.high:.2f})" if intervals else "")


def _seconds(measured: Measurement) -> list[list[float]]:
    return [[sample / 1e9 for sample in block] for block in measured.blocks_ns]


def _at(row: Row, batch: int) -> Measurement | None:
    return next((measured for measured in row.measurements if measured.batch == batch and measured.blocks_ns), None)


def notes(results: Results) -> list[str]:
    """What a reader must know beside the tables: who is missing and why, on how many images, cold start, sizes."""
    found = [f"{row.name}: {row.status}: {row.reason}" for row in results.rows if row.status != "ok"]
    found += [f"{row.name}: {row.warning}." for row in results.rows if row.warning and row.status == "ok"]
    if (compared := find_baseline(results)) is not None:
        found.append(f"The ratio is to {compared.name}; n.s.: not significant.")
    judged = next((row.accuracy for row in results.rows if row.accuracy), None)
    if judged:
        found.append(
            f"Top-1 on {judged.images} images of {results.split};"
            f" the 95 % interval of {judged.top1:.1%} is {judged.low:.1%} to {judged.high:.1%}."
        )
    for row in results.rows:
        if row.status == "ok" and row.cold:
            memory = f", peak memory {size(row.peak_memory_bytes)}" if row.peak_memory_bytes else ""
            cold = row.cold
            found.append(
                f"{row.name}: {row.precision}, {row.device}, {size(row.artifact_bytes)} on disk{memory}; cold start:"
                f" imports {cold.import_s:.2f} s, load {cold.load_s:.2f} s, first answer {milliseconds(cold.first_s)}."
            )
    return found


def _markdown_table(rows: list[tuple[str, ...]]) -> list[str]:
    head, *body = rows
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(" --- " for _ in head) + "|",
        *("| " + " | ".join(cells) + " |" for cells in body),
    ]


def terminal(results: Results) -> str:
    """The tables and notes in plain, aligned columns."""
    blocks = []
    if results.data_kind == "shapes":
        blocks.append(TOY.replace("`", ""))
    for batch in batches_of(results):
        rows = table(results, batch, intervals=False)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        blocks.append("\n".join([f"batch {batch}", *lines]))
    blocks.append("\n".join(textwrap.fill(note, 80, subsequent_indent="  ") for note in notes(results)))
    return "\n\n".join(blocks)
