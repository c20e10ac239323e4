"""Recipes for people: all side by side, and one in full, with what each field means."""

from __future__ import annotations

import ast
import dataclasses
from itertools import pairwise
from pathlib import Path
from textwrap import fill

from tinyres import recipes
from tinyres.recipes import RECIPES, Recipe

WIDTH = 80
FIELDS = [field.name for field in dataclasses.fields(Recipe) if field.name not in ("name", "about")]
_SHORT = {"cosine-by-epoch": "cos/ep", "alternating": "altern."}


def describe_recipes() -> str:
    """What each recipe is for, and a table of every field in which they differ."""
    every = list(RECIPES.values())
    lines = [fill(f"{recipe.name:9} {recipe.about}", WIDTH, subsequent_indent=" " * 10) for recipe in every]
    differing = [name for name in FIELDS if len({getattr(recipe, name) for recipe in every}) > 1]
    table = [["--set", *(recipe.name for recipe in every)]]
    table += [[name, *(_short(getattr(recipe, name)) for recipe in every)] for name in differing]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    rows = [" ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]
    same = [f"{name}={_typed(getattr(every[0], name))}" for name in FIELDS if name not in differing]
    return "\n".join([*lines, "", *rows, "", "alike in all:", *(f"  {text}" for text in same)])


def describe_recipe(recipe: Recipe) -> str:
    """Every field as `--set` takes it, and what it means."""
    meanings = field_meanings()
    lines = [fill(f"{recipe.name}: {recipe.about}", WIDTH), ""]
    for name in FIELDS:
        value = f"{name}={_typed(getattr(recipe, name))}"
        lines.append(fill(f"{value:27} {meanings[name]}", WIDTH, subsequent_indent=" " * 28))
    return "\n".join(lines)


def field_meanings() -> dict[str, str]:
    """What the text under each field of `Recipe` says, from the source: Python keeps none of it."""
    tree = ast.parse(Path(recipes.__file__).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == Recipe.__name__)
    return {
        field.target.id: str(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def _typed(value: object) -> str:
    """As `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_typed, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def _short(value: object) -> str:
    """For a column of the table."""
    if isinstance(value, tuple):
        few = len(value) < 4 or len(set(value)) < 4
        return "-".join(f"{part:g}" for part in (value if few else (value[0], value[-1])))
    if isinstance(value, bool):
        return "yes" if value else "-"
    return f"{value:g}" if isinstance(value, float) else _SHORT.get(str(value), str(value))
