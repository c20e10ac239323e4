from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_results import ALL, FP32, INT8, PYTORCH, SLOW, results, row
from hypothesis import given
from hypothesis import strategies as st

from tinyres import records
from tinyres.bench.against import changes, machine_of, require_same_machine
from tinyres.bench.gate import METRICS, failures, parse_condition
from tinyres.bench.studies.agreement import agreement, main
from tinyres.errors import UsageError

PASSING = results(PYTORCH, FP32, INT8)


@pytest.mark.parametrize(
    ("text", "failing"),
    [
        ("p50>5ms", []),
        ("p50>2ms", ["onnxruntime-cpu fp32"]),
        ("p50>500us", ["onnxruntime-cpu fp32", "openvino int8-cpu"]),
        ("p50@32>0.02s", ["onnxruntime-cpu fp32"]),
        ("openvino*:p50@32>10ms", ["openvino int8-cpu"]),
        ("pytorch eager:p50>5ms", ["pytorch eager"]),
        ("accuracy<0.60", ["openvino int8-cpu"]),
        ("accuracy<58%", []),
        ("drop>0.5%", ["openvino int8-cpu"]),
        ("drop>1.5%", []),
        ("throughput<500", ["onnxruntime-cpu fp32"]),
        ("memory>150MiB", ["onnxruntime-cpu fp32", "openvino int8-cpu"]),
        ("size>20MiB", []),
        ("cold>0.3s", ["onnxruntime-cpu fp32", "openvino int8-cpu"]),
        ("disturbed>0", []),
        ("slower-than-baseline", []),
        (" p95 > 1000 ms ", []),
    ],
)
def test_a_condition_names_the_rows_that_it_holds_for(text: str, failing: list[str]) -> None:
    found = failures(PASSING, [parse_condition(text)], None)
    assert [line.removeprefix(f"{text}: ").partition(":")[0] for line in found] == failing


def test_disturbed_blocks_that_count_are_a_share_of_them() -> None:
    first, *others = FP32.measurements
    loud = [replace(block, disturbed="another program ran") if block.round < 2 else block for block in first.blocks]
    found = replace(FP32, measurements=[replace(first, blocks=loud), *others])
    (said,) = failures(results(found), [parse_condition("disturbed@1>20%")], None)
    assert said == "disturbed@1>20%: onnxruntime-cpu fp32: disturbed is 25%"
    assert failures(results(found), [parse_condition("disturbed@1>25%")], None) == []
    assert failures(results(found), [parse_condition("disturbed@32>0")], None) == []
    # Of all: 4 batch sizes of 8 rounds and 4 numbers of clients of 2 rounds.
    (said,) = failures(results(found), [parse_condition("disturbed>4%")], None)
    assert said == "disturbed>4%: onnxruntime-cpu fp32: disturbed is 5%"


def test_what_is_slower_than_the_baseline_is_found_and_the_insignificant_is_not() -> None:
    alike = row("onnxruntime-cpu alike", p50_ms=8, seed=77)
    found = failures(results(PYTORCH, SLOW, alike), [parse_condition("slower-than-baseline")], None)
    assert [line.partition("fp16")[0] for line in found] == ["slower-than-baseline: onnxruntime-cpu "]
    assert "batch 1: 0.8" in found[0]
    assert "batch 32: 0.8" in found[0]


@pytest.mark.parametrize("text", ["p50>1s", "accuracy<0.1", "slower-than-baseline", "slower-than-before"])
def test_what_was_not_measured_fails(text: str) -> None:
    found = failures(ALL, [parse_condition(text)], [])
    assert f"{text}: openvino fp32: not measured (failed: it crashed)" in found


def test_a_percentile_of_too_few_runs_a_batch_not_measured_and_a_name_that_nobody_has_fail() -> None:
    few = results(row("onnxruntime-cpu fp32", p50_ms=3, runs=5))
    for text, said in (
        ("p99>1s", "onnxruntime-cpu fp32: p99 was not measured, or on too few runs"),
        ("p50@7>1s", "onnxruntime-cpu fp32: p50 was not measured, or on too few runs"),
        ("tensorrt*:p50>1s", "no contender of that name took part"),
    ):
        assert failures(few, [parse_condition(text)], None) == [f"{text}: {said}"]


def test_the_value_is_shown_in_the_unit_that_was_asked_in() -> None:
    (said,) = failures(results(PYTORCH, INT8), [parse_condition("accuracy<60%")], None)
    assert said.endswith("accuracy is 59%")
    (said,) = failures(results(PYTORCH, FP32), [parse_condition("p50>2 ms")], None)
    assert " ms" in said.rpartition("p50 is ")[2]


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("p50", "is no condition", "for example"),
        ("", "is no condition", "for example"),
        ("p50>>5ms", "is no condition", "for example"),
        ("p50>fast", "is no condition", "for example"),
        ("p5O>5ms", "is no condition", "for example"),
        ("p55>5ms", "there is no 'p55'", "did you mean"),
        ("p50>5", "p50 needs a unit", "valid: us, ms, s"),
        ("accuracy<60ms", "accuracy is not in ms", "valid: none, %"),
        ("accuracy<80", "accuracy is a share, up to 1", "80% is one"),
        ("disturbed>10", "disturbed is a share, up to 1", "10% is one"),
        ("accuracy>101%", "accuracy is a share, up to 1", "101% is one"),
        ("drop>0.5", "drop needs a unit", "valid: %"),
        ("slower-than-pytorch", "is no condition", "slower-than-baseline"),
    ],
)
def test_a_condition_that_is_none_is_refused_with_what_is_valid(text: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_condition(text)
    assert hint in str(caught.value.hint)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = parse_condition(text)
    except UsageError:
        return
    assert condition.metric in METRICS or condition.metric.startswith("slower-than")


def test_before_is_only_known_with_an_earlier_bench() -> None:
    condition = parse_condition("slower-than-before")
    with pytest.raises(UsageError, match="needs an earlier bench"):
        failures(PASSING, [condition], None)
    slower = replace(PASSING, rows=[PYTORCH, row("onnxruntime-cpu fp32", p50_ms=4, seed=9), INT8])
    found = failures(slower, [condition], changes(PASSING, slower))
    assert len(found) == 1
    assert found[0].startswith("slower-than-before: onnxruntime-cpu fp32: batch 1: 0.7")
    fresh = results(PYTORCH, SLOW)
    assert failures(fresh, [condition], changes(PASSING, fresh)) == [
        "slower-than-before: onnxruntime-cpu fp16: batch 1: not in the earlier bench;"
        " batch 32: not in the earlier bench"
    ]


def test_who_was_measured_before_and_is_gone_fails() -> None:
    condition = parse_condition("slower-than-before")
    now = results(PYTORCH, FP32)
    before = [row.name for row in PASSING.measured]
    assert failures(now, [condition], changes(PASSING, now), before) == [
        "slower-than-before: openvino int8-cpu: measured before, and not now"
    ]


@pytest.mark.parametrize("text", ["drop>1%", "slower-than-baseline"])
def test_a_baseline_that_is_not_float32_is_compared_with_nothing(text: str) -> None:
    (said,) = failures(results(INT8), [parse_condition(text)], None)
    assert said.endswith("it is the baseline itself, for want of one in float32")


def test_one_round_is_too_few_to_call_anything_not_slower() -> None:
    short = [
        replace(one, measurements=[replace(m, blocks=m.blocks[:1]) for m in one.measurements])
        for one in (PYTORCH, FP32)
    ]
    found = failures(results(*short), [parse_condition("slower-than-baseline")], None)
    assert "batch 1: too few rounds to tell" in found[0]


def test_a_bench_is_not_slower_than_itself_and_twice_the_time_is() -> None:
    assert [change.speedup.significant for change in changes(PASSING, PASSING)] == [False] * 6
    halved = results(PYTORCH, row("onnxruntime-cpu fp32", p50_ms=6, seed=2), INT8)
    change = next(one for one in changes(PASSING, halved) if one.name == "onnxruntime-cpu fp32")
    assert change.slower
    assert change.speedup.value == pytest.approx(0.5, rel=0.01)
    assert change.after_s == pytest.approx(2 * change.before_s, rel=0.01)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("threads", 4, "threads: 4, here 2"),
        ("scope", "device only", "scope: device only"),
        ("environment", replace(PASSING.environment, cpu="Another"), "cpu: Another, here A CPU"),
        ("environment", replace(PASSING.environment, gpu="H100"), "gpu: H100, here None"),
    ],
)
def test_a_bench_of_another_machine_is_refused_with_what_differs(field: str, value: object, said: str) -> None:
    other = replace(PASSING, **{field: value})
    with pytest.raises(UsageError, match=said):
        require_same_machine(other, machine_of(PASSING), name="old.json")
    with pytest.raises(UsageError, match="another machine or with other settings"):
        changes(other, PASSING)


def test_two_benches_agree_unless_a_significant_ranking_is_reversed() -> None:
    same = agreement(PASSING, PASSING)
    assert (same.pairs, same.both, same.one, same.neither, same.contradictions) == (6, 6, 0, 0, [])
    reversed_ = results(PYTORCH, row("onnxruntime-cpu fp32", p50_ms=0.5, seed=5), INT8)
    assert agreement(PASSING, reversed_).contradictions == [
        "batch 1: onnxruntime-cpu fp32, openvino int8-cpu",
        "batch 32: onnxruntime-cpu fp32, openvino int8-cpu",
    ]
    level = results(PYTORCH, row("onnxruntime-cpu fp32", p50_ms=1, seed=5), INT8)
    unsure = agreement(PASSING, level)
    assert (unsure.both, unsure.one, unsure.contradictions) == (4, 2, [])


def test_benches_with_nothing_in_common_do_not_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in (("a", PASSING), ("b", results(SLOW)), ("c", PASSING)):
        records.save(tmp_path / f"{name}.json", found)
    for pair, code in (("ab", 1), ("ac", 0)):
        monkeypatch.setattr(sys, "argv", ["agreement", *(str(tmp_path / f"{name}.json") for name in pair)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
