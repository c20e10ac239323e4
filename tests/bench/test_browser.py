"""The HTML report in a real browser: no console error, and nothing wider than a phone. Skipped where there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from drawn_results import ALL

from tinyres.bench.reports.page import page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((found for found in map(shutil.which, NAMES) if found), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed here: the report was not opened")
PHONE = """<iframe width="390" height="800" src="report.html"></iframe><script>
document.querySelector("iframe").onload = (event) => {
  const page = event.target.contentDocument.documentElement
  document.title = `wide ${page.scrollWidth} tall ${page.scrollHeight} tables ${page.querySelectorAll("table").length}`
}</script>"""


def opened(path: Path) -> tuple[str, list[str]]:
    """The page as the browser has it after loading, and what it wrote to its console."""
    assert BROWSER is not None
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--allow-file-access-from-files",
    ]
    home = path.parent / "profile"
    ran = subprocess.run(
        [BROWSER, *options, f"--user-data-dir={home}", "--virtual-time-budget=3000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(path.parent)},
    )
    return ran.stdout, re.findall(r"CONSOLE.*", ran.stderr)


@needs_browser
@pytest.mark.slow
def test_the_report_opens_without_a_word_on_the_console_and_fits_a_phone(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(ALL), encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE, encoding="utf-8")
    shown, said = opened(tmp_path / "report.html")
    assert said == []
    assert shown.count("<svg role") == 4
    shown, said = opened(tmp_path / "phone.html")
    assert said == []
    wide, tall, tables = map(int, re.search(r"wide (\d+) tall (\d+) tables (\d+)", shown).groups())  # type: ignore[union-attr]
    assert wide <= 390
    assert tall > 3000
    assert tables >= 6


@needs_browser
@pytest.mark.slow
def test_a_page_that_fetches_or_is_wide_would_be_found_out(tmp_path: Path) -> None:
    spoilt = page(ALL).replace("<h1>", '<div style="width: 700px">x</div><script>1</script><img src="x.png"><h1>')
    (tmp_path / "report.html").write_text(spoilt, encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE, encoding="utf-8")
    _, said = opened(tmp_path / "report.html")
    assert len(said) >= 2
    shown, _ = opened(tmp_path / "phone.html")
    assert "wide 7" in shown
