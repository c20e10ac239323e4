from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyres import records
from tinyres.errors import ArtifactError, InputError
from tinyres.spec import ModelSpec


@dataclass(frozen=True)
class Sample:
    count: int
    names: tuple[str, ...]
    share: float | None


@given(
    st.builds(
        Sample,
        st.integers(),
        st.lists(st.text()).map(tuple),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_a_record_survives_writing_and_reading(sample: Sample) -> None:
    assert records.from_json(Sample, records.to_json(sample), source="test") == sample


@given(st.text() | st.binary())
def test_any_text_is_a_record_or_an_input_error(text: str | bytes) -> None:
    with pytest.raises(InputError):
        records.from_json(ModelSpec, text, source="test")


def test_an_error_names_the_source_and_the_field(tmp_path: Path) -> None:
    path = tmp_path / "sample.json"
    path.write_text('{"count": "many", "names": [], "share": null}')
    with pytest.raises(ArtifactError, match=r"sample\.json is damaged or of another kind: count: "):
        records.load(Sample, path, error=ArtifactError)


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.to_json(Sample(1, (), float("nan")))


def test_a_file_past_the_bound_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 10)
    (tmp_path / "big.json").write_text("[" * 11)
    with pytest.raises(InputError, match="too large"):
        records.load(Sample, tmp_path / "big.json")


plain = st.recursive(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(alphabet='[]\n\\" ,0123456789e-ab'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("a[\n1", max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(plain)
def test_numbers_on_one_line_are_the_same_numbers(value: object) -> None:
    assert json.loads(records.to_json({"value": value})) == {"value": value}


def test_a_list_of_numbers_is_one_line() -> None:
    text = records.to_json({"samples": [[1, -2.5], [3e-7]], "names": ["a", "b"]})
    assert [line.strip() for line in text.splitlines()][2:4] == ["[1, -2.5],", "[3e-07]"]
