from __future__ import annotations

import dataclasses

import pytest

from tinyres.recipe_text import FIELDS, describe_recipe, field_meanings
from tinyres.recipes import DEMO, RECIPES, Recipe, override


def test_every_field_has_a_meaning() -> None:
    assert [*field_meanings()] == FIELDS
    assert all(meaning.endswith(".") for meaning in field_meanings().values())


ODD = dataclasses.replace(DEMO, lr=0.12345678, warmup_epochs=1 / 9, start_scale=2 / 3)


@pytest.mark.parametrize("recipe", [*RECIPES.values(), ODD])
def test_what_is_shown_of_a_recipe_sets_another_to_it(recipe: Recipe) -> None:
    lines = describe_recipe(recipe).splitlines()
    assert max(map(len, lines)) <= 80
    values = [line.split()[0] for line in lines if "=" in line.partition(" ")[0]]
    assert len(values) == len(FIELDS)
    assert override(dataclasses.replace(DEMO, name=recipe.name, about=recipe.about), values) == recipe
