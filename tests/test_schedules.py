from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyres.recipes import BEST, DEMO, FAST, RECIPES, SEED
from tinyres.schedules import ema_decay, is_plain, learning_rate, picture_size, picture_sizes


def test_the_seed_steps_down_half_a_cosine_once_an_epoch() -> None:
    rates = [learning_rate(SEED, epoch * 10 + step, 10) for epoch in (0, 25, 50, 99) for step in (0, 9)]
    wanted = [0.01 * (1 + math.cos(math.pi * epoch / 100)) / 2 for epoch in (0, 25, 50, 99) for _ in (0, 9)]
    assert rates == pytest.approx(wanted)


def test_warmup_rises_to_the_peak_and_the_end_is_almost_zero() -> None:
    recipe = replace(DEMO, epochs=5, warmup_epochs=1.0, lr=0.1)
    rates = [learning_rate(recipe, step, 10) for step in range(50)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.0005


def test_the_linear_ramp_falls_by_equal_steps() -> None:
    recipe = replace(FAST, epochs=6, warmup_epochs=1.0, lr=0.5)
    rates = [learning_rate(recipe, step, 10) for step in range(60)]
    assert rates[10] == pytest.approx(0.5)
    steps = {round(before - after, 9) for before, after in itertools.pairwise(rates[10:])}
    assert steps == {0.01}
    assert rates[-1] == pytest.approx(0.01)


@given(
    epochs=st.integers(1, 40),
    scale=st.floats(0.25, 1.0),
    grow=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    full=st.integers(32, 256),
)
def test_pictures_only_grow_in_steps_of_eight_and_the_last_epoch_is_full(
    epochs: int, scale: float, grow: tuple[float, float], full: int
) -> None:
    recipe = replace(DEMO, epochs=epochs, start_scale=scale, grow=(min(grow), max(grow)), image_size=full)
    sizes = [picture_size(recipe, epoch) for epoch in range(epochs)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == full
    assert all(size == full or size % 8 == 0 for size in sizes)
    assert picture_sizes(recipe) == sorted(set(sizes))


def test_the_fast_recipe_trains_two_thirds_of_its_time_on_forty_pixels() -> None:
    assert [picture_size(FAST, epoch) for epoch in (0, 9, 10, 14, 17)] == [40, 40, 40, 64, 64]
    assert picture_sizes(FAST) == [40, 48, 56, 64]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_every_recipe_ends_with_full_pictures_and_almost_no_learning_rate(recipe: object) -> None:
    assert recipe in RECIPES.values()
    last = recipe.epochs * 100 - 1  # type: ignore[attr-defined]
    assert picture_size(recipe, recipe.epochs - 1) == 64  # type: ignore[arg-type,attr-defined]
    assert learning_rate(recipe, last, 100) < 0.01 * recipe.lr  # type: ignore[arg-type,attr-defined]


def test_the_last_epochs_of_best_are_plain() -> None:
    assert [is_plain(BEST, epoch) for epoch in (0, 99, 100, 109)] == [False, False, True, True]
    assert not any(is_plain(SEED, epoch) for epoch in range(100))


def test_the_average_forgets_its_start_fast_and_then_keeps_its_time_constant() -> None:
    recipe = replace(DEMO, ema_epochs=0.5)
    assert ema_decay(recipe, 0, 1000) == pytest.approx(0.1)
    # After 0.5 epochs of 1000 steps what is left of an old value is 1 / e.
    assert math.prod([ema_decay(recipe, 100_000, 1000)] * 500) == pytest.approx(1 / math.e)


def test_a_run_that_is_all_warm_up_ends_at_nothing() -> None:
    recipe = replace(DEMO, epochs=1, warmup_epochs=1.0)
    rates = [learning_rate(recipe, step, 4) for step in range(5)]
    assert rates == pytest.approx([recipe.lr / 4, recipe.lr / 2, recipe.lr * 0.75, recipe.lr, 0])
