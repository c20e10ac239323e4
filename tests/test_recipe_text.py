from __future__ import annotations

import dataclasses

import pytest

from tinyres.recipe_text import FIELDS, describe_recipe, field_meanings
from tinyres.recipes import DEMO, RECIPES, override


def test_every_field_has_a_meaning() -> None:
    assert [*field_meanings()] == FIELDS
    assert all(meaning.endswith(".") for meaning in field_meanings().values())


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_shown_of_a_recipe_sets_another_to_it(name: str) -> None:
    lines = describe_recipe(RECIPES[name]).splitlines()
    assert max(map(len, lines)) <= 80
    values = [line.split()[0] for line in lines if "=" in line.partition(" ")[0]]
    assert len(values) == len(FIELDS)
    as_that = dataclasses.replace(DEMO, name=name, about=RECIPES[name].about)
    assert override(as_that, values) == RECIPES[name]
