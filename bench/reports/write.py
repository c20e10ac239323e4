"""All reports of a bench, into one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyres import records
from tinyres.bench.reports.markdown import markdown
from tinyres.bench.reports.page import page
from tinyres.bench.reports.sheet import sheet
from tinyres.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.bench.results import Results


def write_reports(folder: Path, results: Results) -> list[Path]:
    """Write results.json, .md and .csv and report.html; return the paths. Errors: StorageError."""
    records.save(folder / "results.json", results)
    texts = {"results.md": markdown(results), "results.csv": sheet(results), "report.html": page(results)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / "results.json", *(folder / name for name in texts)]
