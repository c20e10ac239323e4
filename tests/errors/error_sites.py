"""Where the library makes an error, found in its syntax, and which of those places a test's own words are about."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conftest import REPOSITORY

from tinyres import errors

LIBRARY = ("tinyres", "export", "bench")
HELPERS = {"missing_extra": "{} needs the package {}, which is not installed", "require_choice": "there is no {} "}
"""Functions that make an error of their arguments, and how they word it."""
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
LEAST_WORDS = 3
"""A run of so many words is taken for a quotation, if no other message holds it."""


@dataclass(frozen=True)
class Site:
    """A call that makes an error."""

    file: str
    function: str
    first: int
    last: int
    """Its lines."""
    pieces: tuple[str, ...]
    """The parts of its message that are written down in the source."""

    @property
    def place(self) -> str:
        return f"{self.file}::{self.function}"

    def __str__(self) -> str:
        return f"{self.place}: {'…'.join(self.pieces)}"


@cache
def sites() -> tuple[Site, ...]:
    """Every place in the library at which an error is made, but the helpers themselves."""
    found = []
    for folder in LIBRARY:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            file = str(path.relative_to(REPOSITORY))
            if "templates" not in path.parts and file != "tinyres/errors.py":
                found += sites_of(path.read_text(encoding="utf-8"), file)
    return tuple(found)


def sites_of(source: str, file: str) -> list[Site]:
    """The sites of one module."""
    tree = ast.parse(source)
    raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    found = []
    for function, node in _calls(tree, ""):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        # `raise error(...)`: the class came as an argument.
        if name in KINDS or name in HELPERS or (id(node) in raised and name.islower()):
            found.append(Site(file, function, node.lineno, node.end_lineno or node.lineno, _pieces(name, node.args)))
    return found


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".lstrip(".")
    if isinstance(node, ast.Call):
        yield function, node
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, function)


def _pieces(name: str, arguments: list[ast.expr]) -> tuple[str, ...]:
    if name in HELPERS:
        parts = HELPERS[name].split("{}")
        filled = [parts[0]]
        for argument, rest in zip(arguments, parts[1:], strict=False):
            first, *more = _constants(argument) or ("", "")
            filled[-1] += first
            filled += more
            filled[-1] += rest
        return tuple(filled)
    return _constants(arguments[0]) if arguments else ()


def _constants(node: ast.expr) -> tuple[str, ...]:
    """What an expression says in any case: of an f-string, the parts between its values."""
    if isinstance(node, ast.Constant):
        return (str(node.value),)
    if isinstance(node, ast.JoinedStr):
        parts = [""]
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts[-1] += str(value.value)
            else:
                parts.append("")
        return tuple(parts)
    return ()


def words_of(text: str) -> list[str]:
    """The words of a message or of a pattern for one; what escapes a pattern's signs does not count."""
    return re.findall(r"[\w'/=.-]*\w", text.replace("\\", ""))


def runs_of(text: str) -> set[tuple[str, ...]]:
    """All runs of words."""
    words = words_of(text)
    return {tuple(words[at : at + LEAST_WORDS]) for at in range(len(words) - LEAST_WORDS + 1)}


@cache
def quoted(but: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """The runs of words in the strings of all tests, docstrings and the files `but` left out."""
    found: set[tuple[str, ...]] = set()
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        if path.name not in but:
            for text in strings(ast.parse(path.read_text(encoding="utf-8"))):
                found |= runs_of(text)
    return frozenset(found)


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string of a module that is not alone on its line, as a docstring is."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def unquoted(runs: frozenset[tuple[str, ...]], among: tuple[Site, ...]) -> list[Site]:
    """The sites of which `runs` holds no run of words that is theirs alone."""
    own = [set().union(*map(runs_of, site.pieces)) for site in among]
    shared = Counter(run for found in own for run in found)
    return [
        site
        for site, found in zip(among, own, strict=True)
        if not any(shared[run] == 1 and run in runs for run in found)
    ]


def path_of(file: str) -> str:
    """A module's file as sites name it."""
    return str(Path(file).resolve().relative_to(REPOSITORY))
