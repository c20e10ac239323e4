"""Each level of the proof, made to fire and to stay quiet, on answers made up by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinyres.export import parity
from tinyres.export.certificate import Grade, Level, ProofImages, grade_of
from tinyres.export.limits import FP16, FP32, INT8, Limits
from tinyres.export.parity import Evidence

IMAGES, CLASSES = 40, 5


def evidence(*, noise: float = 1e-6, labelled: bool = True, seed: int = 0) -> Evidence:
    """A checkpoint with clear decisions, about 80 % right, whose float32 is off by `noise` of the signal."""
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=(IMAGES, CLASSES)) * 2
    labels = exact.argmax(axis=1)
    wrong = rng.random(IMAGES) < 0.2
    labels[wrong] = (labels[wrong] + 1) % CLASSES
    return Evidence(
        images=rng.integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8),
        labels=labels if labelled else None,
        checkpoint=(exact + rng.normal(size=exact.shape) * noise).astype(np.float32),
        exact_rows=np.arange(IMAGES),
        exact=exact,
    )


def good(known: Evidence, seed: int = 1) -> NDArray[np.float32]:
    """What a correct artifact answers: within one floor."""
    rng = np.random.default_rng(seed)
    return (known.exact + rng.normal(size=known.exact.shape) * 1e-6).astype(np.float32)


@given(st.integers(0, 10_000))
def test_answers_within_the_noise_pass_every_level(seed: int) -> None:
    known = evidence(seed=seed)
    answers = good(known, seed)
    for level in (parity.numeric, parity.decision, parity.accuracy):
        assert level(known, answers, FP32).passed is True


def test_numeric_measures_the_error_by_the_signal_and_the_floor() -> None:
    known = evidence()
    answers = known.exact.astype(np.float32) + np.float32(0.001)
    level = parity.numeric(known, answers, FP32)
    signal = np.sqrt(((known.exact - known.exact.mean(axis=0)) ** 2).mean())
    assert level.measured["error"] == pytest.approx(0.001 / signal, rel=1e-3)
    assert level.passed is False


def test_half_precision_may_differ_by_its_share_of_the_signal_and_no_more() -> None:
    known = evidence()
    signal = np.sqrt(((known.exact - known.exact.mean(axis=0)) ** 2).mean())
    for share, passed in ((FP16.numeric_share * 0.99, True), (FP16.numeric_share * 1.01, False)):
        answers = (known.exact + share * signal).astype(np.float32)
        assert parity.numeric(known, answers, FP16).passed is passed
        assert parity.numeric(known, answers, FP32).passed is False


def test_numeric_refuses_an_offset_that_changes_no_decision() -> None:
    known = evidence()
    assert parity.decision(known, good(known) + np.float32(0.01), FP32).passed is True
    assert parity.numeric(known, good(known) + np.float32(0.01), FP32).passed is False


def test_numeric_refuses_a_checkpoint_without_signal() -> None:
    known = evidence()
    flat = replace(known, exact=np.ones_like(known.exact), checkpoint=np.ones_like(known.checkpoint))
    level = parity.numeric(flat, flat.checkpoint, FP32)
    assert (level.passed, level.detail) == (False, "the checkpoint answers alike for every image")


def test_numeric_refuses_a_checkpoint_whose_own_floor_is_too_high() -> None:
    known = evidence(noise=1e-2)
    assert parity.numeric(known, known.checkpoint, FP32).passed is False


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("level", [parity.numeric, parity.decision, parity.accuracy])
def test_one_answer_that_is_not_finite_fails(bad: float, level: object) -> None:
    known = evidence()
    answers = good(known)
    answers[7, 2] = bad
    assert level(known, answers, FP32).passed is False


@pytest.mark.parametrize("level", [parity.numeric, parity.decision, parity.accuracy])
def test_missing_rows_and_no_rows_fail(level: object) -> None:
    known = evidence()
    assert level(known, good(known)[:-1], FP32).passed is False
    nothing = Evidence(
        images=known.images[:0],
        labels=np.empty(0, dtype=np.int64),
        checkpoint=known.checkpoint[:0],
        exact_rows=np.empty(0, dtype=np.int64),
        exact=known.exact[:0],
    )
    assert level(nothing, known.checkpoint[:0], FP32).passed is False


def test_a_swap_of_two_classes_fails_decision_and_names_the_images() -> None:
    known = evidence()
    answers = good(known)[:, [1, 0, 2, 3, 4]]
    level = parity.decision(known, answers, FP32)
    assert level.passed is False
    flips = parity.find_flips(known, answers)
    assert level.measured["flips"] == len(flips) == int((known.exact.argmax(axis=1) < 2).sum())
    first = flips[0]
    row = known.checkpoint[first.image]
    assert first.margin == pytest.approx(float(row[first.checkpoint] - row[first.artifact]))


def test_a_tie_within_rounding_counts_neither_way_but_a_clear_flip_does() -> None:
    known = evidence()
    exact = known.exact.copy()
    exact[3] = [1.0, 1.0 + 1e-7, 0, 0, 0]
    exact[4] = [1.0, 1.01, 0, 0, 0]
    known = replace(known, exact=exact, checkpoint=exact.astype(np.float32))
    answers = exact.astype(np.float32)
    answers[3, :2] = [1.0 + 1e-6, 1.0]
    level = parity.decision(known, answers, FP32)
    assert (level.passed, level.measured["ties"]) == (True, 1)
    answers[4, :2] = [1.02, 1.0]
    level = parity.decision(known, answers, FP32)
    assert (level.passed, level.measured["flips"]) == (False, 1)


def test_accuracy_counts_on_labels_and_gives_its_interval() -> None:
    known = evidence()
    assert known.labels is not None
    answers = good(known)
    right = np.flatnonzero(known.exact.argmax(axis=1) == known.labels)[0]
    answers[right] = -answers[right]
    level = parity.accuracy(known, answers, FP32)
    assert level.passed is False
    assert level.measured["difference"] == pytest.approx(-1 / IMAGES)
    assert level.measured["low"] < -1 / IMAGES < level.measured["high"]


def test_accuracy_without_labels_is_not_proven_and_the_grade_says_numeric() -> None:
    known = evidence(labelled=False)
    level = parity.accuracy(known, good(known), FP32)
    assert level.passed is None
    passed = Level("numeric", True, {}, {}, "")
    assert graded((passed, level)) == "numeric"
    assert graded((passed,)) == "full"
    assert graded((passed, Level.failed("decision", ""))) == "rejected"
    assert graded(()) == "rejected"


def test_a_verdict_of_numpys_own_kind_counts() -> None:
    level = Level.judged("consistency", np.False_, {}, {}, "")
    assert level.passed is False
    assert graded((Level.judged("numeric", np.True_, {}, {}, ""), level)) == "rejected"
    known = evidence(noise=0.0)  # a floor below float32's own step
    answers = known.checkpoint
    alone = looking_up(known, answers)
    level = parity.consistency(known, lambda images: alone(images) + np.float32(5), answers, (1, 4), FP32)
    assert graded((level,)) == "rejected"


def test_consistency_does_not_lose_a_nan() -> None:
    known = evidence()
    answers = good(known)
    answers[0] = np.nan
    assert parity.consistency(known, looking_up(known, good(known)), answers, (50, 60), FP32).passed is False


def looking_up(known: Evidence, answers: NDArray[np.float32]) -> object:
    """An artifact that answers each picture with its own row."""
    rows = {image.tobytes(): answer for image, answer in zip(known.images, answers, strict=True)}
    return lambda images: np.stack([rows[image.tobytes()] for image in images])


def test_consistency_passes_for_answers_of_each_image_alone() -> None:
    known = evidence()
    answers = good(known)
    assert parity.consistency(known, looking_up(known, answers), answers, (1, 4, 50), FP32).passed is True


@pytest.mark.parametrize(
    "spoil",
    [
        lambda got: np.roll(got, 1, axis=0),  # rows in another order
        lambda got: got + got.mean(axis=0),  # depends on the neighbours
        lambda got: np.repeat(got[:1], len(got), axis=0),  # the first row for all
        lambda got: got if len(got) == 4 else got * np.float32(1.001),  # wrong but for the usual batch
        lambda got: got[:-1],  # a row short
        lambda got: np.where(len(got) == 1, np.nan, got),  # NaN at batch 1
    ],
)
def test_consistency_fires_for_answers_that_depend_on_the_batch(spoil: object) -> None:
    known = evidence()
    answers = good(known)
    alone = looking_up(known, answers)
    level = parity.consistency(known, lambda images: spoil(alone(images)), answers, (1, 4, 50), FP32)
    assert level.passed is False


def graded(levels: tuple[Level, ...], limits: Limits = FP32, *, whole: bool = False) -> Grade:
    return grade_of(levels, limits, ProofImages("imagefolder", "f", "val", 10, 5, "0", whole))


def test_what_changes_answers_is_sampled_until_every_image_was_judged() -> None:
    passed = (Level.judged("accuracy", True, {}, {}, ""),)
    for limits, grade in ((INT8, "sampled"), (FP16, "sampled"), (FP32, "full")):
        assert graded(passed, limits) == grade
    assert graded(passed, INT8, whole=True) == "full"
    assert graded((*passed, Level.failed("decision", "")), INT8, whole=True) == "rejected"
    assert graded((*passed, Level.judged("accuracy", None, {}, {}, "")), INT8, whole=True) == "numeric"


def test_int8_without_a_calibration_passes_nothing() -> None:
    known = evidence()
    assert parity.numeric(known, good(known), INT8).passed is False
    assert parity.numeric(known, good(known), replace(INT8, numeric_share=0.01)).passed is True


def test_however_far_int8_is_off_its_runs_may_differ_by_a_quarter_of_the_signal_at_most() -> None:
    known = evidence()
    assert known.error(-known.checkpoint) > 1
    assert parity.largest_difference(known, -known.checkpoint, INT8) == 0.25


def test_int8_may_differ_between_batches_by_no_more_than_from_its_checkpoint() -> None:
    known = evidence()
    rng = np.random.default_rng(2)
    answers = (known.checkpoint + 0.1 * rng.standard_normal(known.checkpoint.shape)).astype(np.float32)
    own = known.error(answers)
    assert parity.largest_difference(known, answers, INT8) == own

    def shaken(by: float) -> bool | None:
        rows = {image.tobytes(): row for image, row in zip(known.images, answers, strict=True)}

        def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            found = np.stack([rows[image.tobytes()] for image in images])
            return found + np.float32(by * known.signal * (len(images) > 1))

        return parity.consistency(known, answer, answers, (1, 3), INT8).passed

    assert shaken(0.9 * own)
    assert shaken(1.1 * own) is False
