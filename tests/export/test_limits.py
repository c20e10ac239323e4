"""The limits are what the measurement says, let every correct conversion pass and no coarser precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tinyres.export.limits import BF16, FP16, FP32, Limits

MEASURED = Path(__file__).resolve().parents[2] / "results" / "limits" / "nano.json"
LIMITS = {"fp32": FP32, "fp16": FP16, "bf16": BF16}


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(MEASURED.read_text())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precisions_limit_is_three_times_the_worst_correct_error(measured: dict[str, Any], precision: str) -> None:
    correct = [row for row in measured["conversions"] if row["precision"] == precision and row["correct"]]
    assert len(correct) >= 3
    worst = max(row["error"] for row in correct)
    assert LIMITS[precision].numeric_share == pytest.approx(3 * worst, rel=0.02)


def passes(row: dict[str, Any], limits: Limits, floor: float) -> bool:
    return (
        row["error"] <= limits.largest_error(floor)
        and row["worst_row"] <= limits.largest_error(floor)
        and row["agreement"] >= limits.agreement
        and -row["difference"] <= limits.accuracy_drop
    )


def test_every_correct_conversion_passes_and_every_coarser_one_fails(measured: dict[str, Any]) -> None:
    for row in measured["conversions"]:
        assert passes(row, LIMITS[row["precision"]], measured["floor"]) is row["correct"], row["conversion"]
    assert {row["precision"] for row in measured["conversions"] if not row["correct"]} == set(LIMITS)


def test_a_high_floor_widens_the_limit_and_a_low_one_does_not_narrow_it() -> None:
    assert FP16.largest_error(1e-7) == FP16.numeric_share
    assert FP16.largest_error(1e-3) == pytest.approx(0.02)
    assert FP32.largest_error(1e-7) == pytest.approx(2e-6)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_three_times_as_many_classes_may_change_as_do_of_drawn_pictures(precision: str) -> None:
    certificate = json.loads(MEASURED.with_name(f"nano-{precision}-drawn.json").read_text())
    (decision,) = (level for level in certificate["levels"] if level["name"] == "decision")
    changed = 1 - decision["measured"]["agreement"]
    assert certificate["images"]["data_kind"] == "generated"
    assert changed > 1 - LIMITS[precision].agreement or precision == "bf16"  # fp16 would have failed by the other limit
    assert LIMITS[precision].on_drawn().agreement <= 1 - 3 * changed
    assert FP32.on_drawn() == FP32
