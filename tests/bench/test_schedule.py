from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyres.bench.schedule import DEFAULT, interleaved, plan_block, total_seconds


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
