"""The results as CSV: a line for each contender and batch size, numbers without units, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from tinyres.bench.reports.tables import latency, ratio_to, throughput
from tinyres.bench.statistics import median

if TYPE_CHECKING:
    from tinyres.bench.results import Measurement, Results, Row

COLUMNS = (
    "contender",
    "status",
    "reason",
    "batch",
    "runs",
    "p50_ms",
    "p50_low_ms",
    "p50_high_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
    "images_per_second",
    "ratio",
    "ratio_low",
    "ratio_high",
    "top1",
    "top1_low",
    "top1_high",
    "images",
    "proof",
    "precision",
    "device",
    "artifact_bytes",
    "artifact_sha256",
    "cold_start_s",
    "peak_memory_bytes",
    "device_memory_bytes",
    "blocks_repeated",
    "blocks_disturbed",
)


def sheet(results: Results) -> str:
    """CSV text with a heading; a cell is empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in results.rows:
        measured: list[Measurement | None] = [*row.measurements] or [None]
        for found in measured:
            writer.writerow(_line(results, row, found))
    return text.getvalue()


def _line(results: Results, row: Row, found: Measurement | None) -> dict[str, object]:
    cells: dict[str, object] = {
        "contender": row.name,
        "status": row.status,
        "reason": row.reason,
        "proof": row.proof,
        "precision": row.precision or "",
        "device": row.device,
        "artifact_bytes": row.artifact_bytes,
        "artifact_sha256": row.artifact_sha256,
        "cold_start_s": round(median([cold.total_s for cold in row.cold]), 4) if row.cold else "",
        "peak_memory_bytes": row.peak_memory_bytes,
        "device_memory_bytes": row.device_memory_bytes,
    }
    if row.accuracy is not None:
        cells |= {"top1": row.accuracy.top1, "top1_low": row.accuracy.low, "top1_high": row.accuracy.high}
        cells["images"] = row.accuracy.images
    if found is None or not found.blocks:
        return cells
    cells |= {"batch": found.batch, "runs": len(found.samples_s), "images_per_second": round(throughput(found), 3)}
    cells |= {"blocks_repeated": found.repeated, "blocks_disturbed": found.disturbed}
    for share in (0.5, 0.9, 0.95, 0.99):
        if (exact := latency(found, share)) is not None:
            cells[f"p{share * 100:.0f}_ms"] = round(exact.value * 1e3, 5)
            if share == 0.5:
                cells |= {"p50_low_ms": round(exact.low * 1e3, 5), "p50_high_ms": round(exact.high * 1e3, 5)}
    ratio = ratio_to(row, results.row(results.baseline), found.batch) if row.name != results.baseline else None
    if ratio is not None:
        cells |= {"ratio": round(ratio.value, 4), "ratio_low": round(ratio.low, 4), "ratio_high": round(ratio.high, 4)}
    return cells
