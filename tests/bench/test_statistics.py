from __future__ import annotations

import numpy as np
import pytest

from tinyres.bench.statistics import median, percentile, speedup


def blocks(rng: np.random.Generator, center: float, *, drift: float = 0.0) -> list[list[float]]:
    """Four blocks of latencies with a heavy tail, each in a mood of its own."""
    return [list(center * (1 + drift * rng.normal()) * rng.lognormal(0, 0.05, 25)) for _ in range(4)]


def test_percentiles_need_samples_beyond_them() -> None:
    assert percentile(list(range(100)), 0.95) == pytest.approx(94.05)
    assert percentile(list(range(99)), 0.95) is None
    assert percentile(list(range(100)), 0.99) is None
    assert median([3, 1, 2]) == 2


def test_a_clear_difference_is_significant_and_its_size_is_right() -> None:
    rng = np.random.default_rng(0)
    ratio = speedup(blocks(rng, 1.0), blocks(rng, 2.0))
    assert ratio.value == pytest.approx(2.0, rel=0.05)
    assert ratio.low < ratio.value < ratio.high
    assert ratio.significant


@pytest.mark.slow
def test_two_equal_contenders_are_rarely_called_different() -> None:
    rng = np.random.default_rng(1)
    wrong = sum(speedup(blocks(rng, 1.0, drift=0.02), blocks(rng, 1.0, drift=0.02)).significant for _ in range(60))
    assert wrong <= 6
