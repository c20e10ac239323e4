from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyres.bench.schedule import (
    DEFAULT,
    LEAST_ROUNDS,
    QUICK,
    THOROUGH,
    Effort,
    fitted,
    interleaved,
    plan_block,
    planned_seconds,
    swept_sizes,
    total_seconds,
)


def test_contenders_take_turns_and_turn_round() -> None:
    assert "".join(interleaved("ABC", 4)) == "ABCCBAABCCBA"


@given(st.floats(1e-5, 10))
def test_every_plan_reaches_one_of_the_two_rules(latency: float) -> None:
    block = plan_block(latency, DEFAULT)
    runs = DEFAULT.rounds * max(block.least, int(block.seconds / latency))
    seconds = total_seconds(latency, DEFAULT)
    enough = seconds >= 3 * 0.999 and runs >= 100
    long = seconds >= 60 * 0.999 and runs >= 15
    assert enough or long


def test_a_fast_contender_is_timed_for_three_seconds_and_a_slow_one_for_a_minute() -> None:
    assert total_seconds(0.001, DEFAULT) == pytest.approx(3)
    assert total_seconds(2.0, DEFAULT) == pytest.approx(60)


@given(
    st.lists(st.floats(1e-4, 5), min_size=1, max_size=26),
    st.floats(0, 2000),
    st.floats(0, 100),
    st.sampled_from([QUICK, DEFAULT, THOROUGH]),
)
def test_what_is_fitted_takes_no_longer_than_there_is_time_for_and_never_too_few_runs(
    latencies: list[float], seconds: float, again: float, effort: Effort
) -> None:
    smaller = fitted(latencies, effort, seconds, again)
    least = replace(effort, limit_s=effort.seconds, rounds=min(effort.rounds, LEAST_ROUNDS))
    assert planned_seconds(latencies, smaller, again) <= max(seconds, planned_seconds(latencies, least, again))
    assert LEAST_ROUNDS <= smaller.rounds <= effort.rounds
    for latency in latencies:
        assert plan_block(latency, smaller).least * smaller.rounds >= effort.limit_runs
        assert total_seconds(latency, smaller) >= effort.seconds * 0.999
    if planned_seconds(latencies, effort, again) <= seconds:
        assert smaller == effort  # nothing is cut without need


def test_rounds_are_cut_before_runs_and_only_those_of_the_slow() -> None:
    whole = planned_seconds([0.001, 0.5], DEFAULT, 10.0)
    assert whole == pytest.approx(3 + 52 + 70, abs=2)
    fewer = fitted([0.001, 0.5], DEFAULT, whole - 5, 10.0)
    assert (fewer.rounds, fewer.limit_s) == (7, DEFAULT.limit_s)
    smaller = fitted([0.001, 0.5], DEFAULT, 60.0, 10.0)
    assert smaller.rounds < 8
    assert total_seconds(0.001, smaller) == pytest.approx(3)
    assert 7.5 <= total_seconds(0.5, smaller) <= 30


def test_the_curve_is_over_powers_of_two() -> None:
    assert swept_sizes([1, 32, 7]) == [2, 4, 8, 16, 64, 128, 256]
