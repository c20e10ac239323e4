from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyres.bench.statistics import STUDENT_T, binomial_distribution, change, median, quantile, speedup

ROUNDS = 8


def blocks(
    rng: np.random.Generator, center: float, *, mood: float = 0.0, drift: tuple[float, ...] = ()
) -> list[list[float]]:
    """Blocks of latencies with a heavy tail, each in a mood of its own; `drift` is the machine's, round by round."""
    shared = drift or (0.0,) * ROUNDS
    return [list(center * math.exp(mood * rng.normal() + drifted) * rng.lognormal(0, 0.05, 25)) for drifted in shared]


def test_a_percentile_is_that_of_the_samples() -> None:
    found = quantile(list(range(1000)), 0.95)
    assert found is not None
    assert found.value == pytest.approx(949.05)
    assert median([3, 1, 2]) == 2


def test_a_clear_difference_is_significant_and_its_size_is_right() -> None:
    rng = np.random.default_rng(0)
    ratio = speedup(blocks(rng, 1.0), blocks(rng, 2.0))
    assert ratio.value == pytest.approx(2.0, rel=0.05)
    assert ratio.low < ratio.value < ratio.high
    assert ratio.significant


def drifting(rng: np.random.Generator, by: float) -> tuple[float, ...]:
    return tuple(np.cumsum(by * rng.normal(size=ROUNDS)))


@pytest.mark.parametrize(("mood", "by"), [(0.0, 0.0), (0.03, 0.0), (0.0, 0.1), (0.03, 0.1)])
def test_two_equal_contenders_are_rarely_called_different(mood: float, by: float) -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        drift = drifting(rng, by)
        wrong += speedup(blocks(rng, 1.0, mood=mood, drift=drift), blocks(rng, 1.0, mood=mood, drift=drift)).significant
    assert wrong <= 12  # 4 are expected, and 20 would be one in twenty


def test_a_machine_that_gets_slower_hides_no_difference_of_three_percent() -> None:
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(100):
        drift = drifting(rng, 0.2)
        ratio = speedup(blocks(rng, 1.0, drift=drift), blocks(rng, 1.05, drift=drift))
        found += ratio.significant and ratio.low > 1
    assert found >= 90


@pytest.mark.parametrize("mood", [0.0, 0.05])
def test_the_intervals_of_ratios_cover_the_truth_at_their_rate(mood: float) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        ratio = speedup(blocks(rng, 1.0, mood=mood), blocks(rng, 1.3, mood=mood))
        covered += ratio.low <= 1.3 <= ratio.high
    assert covered >= 388


def test_one_round_tells_no_difference() -> None:
    ratio = speedup([[1.0, 1.0]], [[2.0, 2.0]])
    assert (ratio.value, ratio.significant) == (pytest.approx(2.0), False)


@pytest.mark.parametrize(("share", "count"), [(0.5, 20), (0.5, 200), (0.9, 100), (0.95, 200), (0.99, 1000)])
def test_the_intervals_of_percentiles_cover_the_truth_whatever_the_distribution(share: float, count: int) -> None:
    rng = np.random.default_rng(4)
    covered = {"lognormal": 0, "two peaks": 0}
    # The true quantiles, by a million samples of each.
    draws = {
        "lognormal": lambda n: rng.lognormal(0, 0.5, n),
        "two peaks": lambda n: np.where(rng.random(n) < 0.7, rng.normal(1, 0.01, n), rng.normal(3, 0.2, n)),
    }
    for name, draw in draws.items():
        truth = np.quantile(draw(1_000_000), share)
        for _ in range(500):
            found = quantile(list(draw(count)), share)
            assert found is not None
            assert found.low <= found.value <= found.high
            covered[name] += found.low <= truth <= found.high
    assert min(covered.values()) >= 0.93 * 500  # 95 % or more, but for chance


def test_no_percentile_from_samples_that_do_not_reach_it() -> None:
    samples = list(np.random.default_rng(5).normal(size=5000))
    assert quantile(samples[:5], 0.5) is None
    assert quantile(samples[:6], 0.5) is not None  # 2 x 0.5^6 is below 5 %
    assert quantile(samples[:367], 0.99) is None
    assert quantile(samples[:368], 0.99) is not None  # 0.99^368 is below 2.5 %
    assert quantile([], 0.5) is None


@given(st.integers(1, 300), st.floats(0.01, 0.99))
def test_the_binomial_distribution_is_that_of_its_trials(count: int, share: float) -> None:
    found = binomial_distribution(count, share)
    assert found[-1] == pytest.approx(1)
    assert found[0] == pytest.approx((1 - share) ** count)
    mean = count - found[:-1].sum()  # of a count, as the sum of its chances to be larger
    assert mean == pytest.approx(count * share)


def test_the_table_of_students_t_is_right() -> None:
    """By the density's integral."""
    for freedom, value in enumerate(STUDENT_T, start=1):
        grid = np.linspace(0, value, 200_001)
        scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
        density = scale * (1 + grid**2 / freedom) ** (-(freedom + 1) / 2)
        assert 0.5 + np.trapezoid(density, grid) == pytest.approx(0.995, abs=1e-5)


def test_the_intervals_between_two_days_cover_the_truth_and_rarely_find_what_is_not_there() -> None:
    rng = np.random.default_rng(6)
    covered = found = 0
    for _ in range(400):
        ratio = change(blocks(rng, 1.3), blocks(rng, 1.0))
        covered += ratio.low <= 1.3 <= ratio.high
        found += change(blocks(rng, 1.0), blocks(rng, 1.0)).significant
    assert covered >= 388
    assert found <= 12


def test_days_with_unequal_unrest_and_counts_keep_their_rate() -> None:
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(400):
        restless = [[float(value)] for value in np.exp(rng.normal(0, 0.2, 4))]
        quiet = [[float(value)] for value in np.exp(rng.normal(0, 0.01, 16))]
        found += change(restless, quiet).significant
    assert found <= 12


def test_one_block_tells_no_change() -> None:
    assert not change([[1.0]], [[2.0], [2.1]]).significant
    assert change([[1.0], [1.0]], [[2.0], [2.0]]).value == pytest.approx(0.5)
