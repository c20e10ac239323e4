from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
from conftest import REPOSITORY
from drawn_results import ALL, FP32, INT8, PYTORCH, results, row

from tinyres.bench.reports import tables
from tinyres.bench.reports.markdown import _note, _safe, markdown
from tinyres.bench.reports.page import page
from tinyres.bench.reports.sheet import COLUMNS, sheet
from tinyres.bench.reports.terminal import terminal
from tinyres.bench.results import Block, Measurement
from tinyres.runtime.runner import Precision

LONG = row("onnxruntime-tensorrt int8-tensorrt", p50_ms=1000, proof="sampled", seed=8)


@pytest.mark.parametrize("width", [80, 120])
def test_every_table_fits_the_terminal_and_keeps_what_matters(width: int) -> None:
    shown = terminal(results(PYTORCH, FP32, INT8, LONG), width)
    assert max(map(len, shown.splitlines())) <= width
    head = next(line for line in shown.splitlines() if line.startswith("contender")).split()
    assert {"p50", "ratio", "top-1", "proof"} <= set(head)
    assert ("p99" in head) == (width == 120)


def test_the_markdown_table_gives_every_percentile_with_its_interval() -> None:
    lines = markdown(ALL).splitlines()
    assert lines[0] == "# Bench of mine"
    cells = next(line for line in lines if line.startswith("| openvino int8-cpu | ")).split(" | ")
    assert re.fullmatch(r"[\d.]+ ms \([\d.]+ ms to [\d.]+ ms\)", cells[1])
    assert re.fullmatch(r"[78]\.\d\dx \([78]\.\d\d to [78]\.\d\d\)", cells[2])
    difference = cells[8]
    low, high = map(float, difference.split(".."))
    assert low < -1.0 < high < 0.2  # ten gained, twenty lost of a thousand
    assert "- openvino fp32: failed: it crashed" in lines
    assert any("in each of 8 rounds, in turns; 2 threads each on cores 0, 1; TF32 off." in line for line in lines)


def test_the_csv_holds_a_line_for_each_batch_and_one_for_who_failed() -> None:
    lines = list(csv.DictReader(io.StringIO(sheet(ALL))))
    assert tuple(lines[0]) == COLUMNS
    assert [(line["contender"], line["batch"]) for line in lines[:4]] == [
        ("pytorch eager", "1"),
        ("pytorch eager", "4"),
        ("pytorch eager", "32"),
        ("pytorch eager", "64"),
    ]
    (failed,) = (line for line in lines if line["status"] == "failed")
    assert (failed["batch"], failed["p50_ms"], failed["reason"]) == ("", "", "it crashed")
    int8 = next(line for line in lines if line["contender"] == "openvino int8-cpu")
    assert float(int8["p50_ms"]) == pytest.approx(1.0, rel=0.02)
    assert float(int8["ratio"]) == pytest.approx(8.0, rel=0.02)
    assert (int8["top1"], int8["precision"]) == ("0.59", "int8")


def test_equal_contenders_are_not_ranked() -> None:
    alike = row("onnxruntime-cpu alike", p50_ms=8, seed=21)
    (_, line) = tables.latencies(results(PYTORCH, alike), 1, intervals=False).rows
    assert line[2] == "n.s."


def test_blocks_that_were_thrown_out_count_nowhere_but_are_said() -> None:
    good, bad = Block(0, 0.1, [1_000_000] * 50), Block(0, 0.1, [9_000_000] * 50, "other processes took 30%")
    again = Measurement(1, 5, steady=True, blocks=[bad, good, Block(1, 0.1, [1_000_000] * 50)])
    assert set(again.samples_s) == {0.001}
    assert (again.repeated, again.disturbed) == (1, 0)
    kept = Measurement(1, 5, steady=False, blocks=[good, Block(1, 0.1, [1_000_000] * 50, "the clock was off")])
    notes = tables.notes(
        results(replace(PYTORCH, measurements=[again], loads=[]), replace(FP32, measurements=[kept], loads=[]))
    )
    assert "Of 4 blocks 1 were repeated and 1 count though disturbed: other processes, the clock." in notes
    assert "Not steady when its warm-up ended: onnxruntime-cpu fp32." in notes
    quiet = tables.notes(results(PYTORCH, FP32))
    assert any(re.fullmatch(r"None of \d+ blocks was disturbed\.", note) for note in quiet)


def test_arithmetic_that_is_not_that_of_the_file_is_named_at_the_terminal() -> None:
    wider = replace(row("openvino fp16", p50_ms=2, number="fp16"), precision=Precision("fp16", "bf16"))
    said = terminal(results(PYTORCH, FP32, wider))
    expected = "Computed in another precision than stored: openvino fp16 (fp16 stored, bf16 computed)."
    assert expected in " ".join(said.split())
    assert "another precision" not in terminal(results(PYTORCH, FP32))


def test_the_smallest_batch_close_to_the_best_is_named() -> None:
    # images/s of the drawn rows: 1/8, 4/16, 32/96, 64/200 a millisecond
    best, enough = tables.best_batches(PYTORCH) or pytest.fail("no batch was found")
    assert (best.batch, enough.batch) == (32, 32)


def test_those_left_out_for_one_reason_share_a_line() -> None:
    names = [replace(FP32, name=f"tensorrt {n}", status="skipped", reason="no GPU", measurements=[]) for n in "ab"]
    assert tables.left_out(results(PYTORCH, *names)) == [("tensorrt a, tensorrt b", "skipped: no GPU")]


def test_an_interrupted_bench_and_a_toy_say_so() -> None:
    for shown in (terminal, markdown, page):
        assert "Interrupted: some contenders" in shown(replace(ALL, interrupted=True))
        assert "a toy" in shown(replace(ALL, data_kind="shapes"))
        assert "a toy" not in shown(ALL)


def test_a_bench_without_any_figure_still_has_its_reports() -> None:
    nothing = replace(ALL, rows=[row for row in ALL.rows if row.status == "failed"], baseline="")
    for shown in (terminal, markdown, page, sheet):
        assert "it crashed" in shown(nothing)


def test_names_from_files_are_text_in_the_page() -> None:
    hostile = row("onnxruntime-cpu <script>alert(1)</script>", p50_ms=3, seed=2)
    shown = page(results(PYTORCH, replace(hostile, evidence="<img src=x>", warning='"><b>')))
    assert "<script" not in shown
    assert "<img" not in shown
    assert "<b>" not in shown
    assert "&lt;script&gt;" in shown


def test_the_page_fetches_nothing() -> None:
    shown = page(ALL)
    assert "default-src 'none'" in shown
    assert re.findall(r'(?:src|href)="([^"]*)"', shown) == ["data:,"]
    assert "url(" not in shown
    assert "@import" not in shown


def test_the_page_shows_every_contender_its_certificate_and_the_command() -> None:
    shown = page(ALL)
    for measured in ALL.measured:
        assert shown.count(f"<title>{measured.name}") >= 3  # on each picture
        assert f"<summary>{measured.name}: " in shown
    assert "error 1e-7 of the signal" in shown
    assert "ab" * 32 in shown
    assert "tinyres bench mine" in shown


def test_the_median_is_that_of_the_rounds_and_a_slow_process_is_seen_and_not_followed() -> None:
    quick, slow = [1_000_000] * 40, [3_000_000] * 90
    found = Measurement(1, 5, steady=True, blocks=[Block(n, 0.1, slow if n == 2 else quick) for n in range(4)])
    shown = tables.latency(found, 0.5)
    assert shown is not None
    assert (shown.value, shown.low, shown.high) == (0.001, 0.001, 0.003)


def test_clients_that_were_not_reached_are_named() -> None:
    cut = replace(PYTORCH, loads=PYTORCH.loads[:2])
    assert "Not measured, for lack of time: 4, 8 clients at once." in tables.notes(results(cut))
    assert not any("Not measured" in note for note in tables.notes(results(PYTORCH)))


HOSTILE = [
    (r"\<img src=x onerror=alert(1)>", r"\\\<img src=x onerror=alert(1)\>"),
    ("![p](http://evil/p.png)", r"\!\[p](http://evil/p.png)"),
    ("a|b\n# c\r- d", r"a\|b \# c - d"),
    ("*a* __b__ `c` ~~~ $d$", r"\*a\* \_\_b\_\_ \`c\` \~\~\~ \$d\$"),
    ("a[p](http://evil) b[p][q] c[p]: d[^1] tinyres[gpu]", r"a\[p](http://evil) b\[p]\[q] c\[p]: d\[^1] tinyres[gpu]"),
    ("&lt;b> R&D", r"\&lt;b\> R&D"),
    ("\x1b[2J", r"\\x1b\[2J"),
]


@pytest.mark.parametrize(("name", "expected"), HOSTILE)
def test_names_are_plain_text_in_the_markdown(name: str, expected: str) -> None:
    lines = markdown(replace(results(PYTORCH, row(name, p50_ms=3, seed=2)), run=name)).splitlines()
    assert lines[0] == f"# Bench of {expected}"
    assert any(line.startswith(f"| {expected} | 3") for line in lines)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("<b> `<i>` <u>", r"\<b\> `<i>` \<u\>"),
        (r"`a\` <b>", r"`a\` \<b\>"),
        ("``a` <b>", r"\`\`a\` \<b\>"),
        ("`a``b` <b>", r"\`a\`\`b\` \<b\>"),
        ("`<b>", r"\`\<b\>"),
    ],
)
def test_in_a_note_only_what_stands_between_two_backticks_is_as_it_was(reason: str, expected: str) -> None:
    lines = markdown(replace(ALL, rows=[replace(FP32, status="failed", reason=reason)], baseline="")).splitlines()
    assert f"- {FP32.name}: failed: {expected}" in lines


def test_ordinary_names_and_figures_stay_as_they_are() -> None:
    shown = markdown(
        results(PYTORCH, row("pytorch channels_last bf16", p50_ms=3), row("onnxruntime-cpu fp32", p50_ms=8))
    )
    assert "\n| pytorch channels_last bf16 | 3" in shown
    assert "\\" not in shown


def test_the_reports_of_the_repository_would_be_written_as_they_are() -> None:
    reports = [path.read_text() for path in (REPOSITORY / "results").rglob("*.md")]
    lines = [line for report in reports if report.startswith("# Bench of ") for line in report.splitlines()]
    cells = [cell for line in lines if line.startswith("| ") for cell in line[2:-2].split(" | ")]
    notes = [line[2:] for line in lines if line.startswith("- ")]
    assert min(len(cells), len(notes)) > 50
    assert list(map(_safe, cells)) == cells
    assert list(map(_note, notes)) == notes
