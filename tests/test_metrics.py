from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyres.metrics import (
    accuracy_of,
    calibration_error,
    confusion_of,
    cross_entropy,
    paired_interval,
    wilson_interval,
)


def test_accuracy_counts_best_and_best_five() -> None:
    logits = np.array([[9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1]], dtype=np.float32)
    found = accuracy_of(logits, np.array([0, 1, 5]))
    assert (found.correct, found.correct_top5) == (1, 1)
    assert (found.top1, found.top5) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


@pytest.mark.parametrize("labels", [[], [0, 1]])
def test_accuracy_refuses_nothing_and_unequal_counts(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="valid: equal, at least 1"):
        accuracy_of(np.zeros((len(labels) // 2, 2)), np.array(labels, dtype=np.int64))


def test_accuracy_refuses_answers_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        accuracy_of(np.full((2, 3), np.nan), np.array([0, 0]))


def test_wilson_interval_equals_published_values() -> None:
    # 0.8 of 10 and 0 of 20, as tabled for Wilson's score interval without continuity correction.
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 600))
def test_paired_interval_holds_the_difference_and_is_never_a_point(gained: int, lost: int, same: int) -> None:
    trials = gained + lost + same + 1
    difference, low, high = paired_interval(gained, lost, trials)
    assert difference == (gained - lost) / trials
    assert low < high
    assert low <= difference <= high


def test_paired_interval_covers_at_its_rate() -> None:
    rng = np.random.default_rng(0)
    gain, loss, trials = 0.03, 0.05, 400
    covered = 0
    for _ in range(2000):
        gained, lost, _same = rng.multinomial(trials, [gain, loss, 1 - gain - loss])
        _, low, high = paired_interval(int(gained), int(lost), trials)
        covered += low <= gain - loss <= high
    assert 0.93 <= covered / 2000 <= 0.98


def test_cross_entropy_equals_torchs_own() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 7)).astype(np.float32) * 5, rng.integers(0, 7, 50)
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)).item()
    assert cross_entropy(logits, labels) == pytest.approx(wanted, rel=1e-6)
    assert np.isfinite(cross_entropy(np.array([[1000.0, -1000.0]]), np.array([1])))


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    # Ten answers at 90 % confidence, seven right; ten at 60 %, six right: gaps of 0.2 and 0, each half of the images.
    sure, unsure = np.log([0.9, 0.1]), np.log([0.6, 0.4])
    logits = np.array([sure] * 10 + [unsure] * 10)
    labels = np.array([0] * 7 + [1] * 3 + [0] * 6 + [1] * 4)
    assert calibration_error(logits, labels) == pytest.approx(0.5 * 0.2, abs=1e-9)


def test_confusion_counts_true_by_answered() -> None:
    logits = np.eye(3)[[0, 1, 1, 2, 0]]
    assert confusion_of(logits, np.array([0, 1, 2, 2, 2])).tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 1]]
