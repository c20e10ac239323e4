"""Whether a version lies in a range such as `>=2.0,<3`, without a package for it.

It knows the plain comparisons that pyproject.toml uses; a part that it does not know refuses nothing.
"""

from __future__ import annotations

import operator
import re
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def fits(version: str, ranges: str) -> bool:
    """Whether `version` meets every part of `ranges`. Only its numbers count: 2.9.0rc1 is 2.9.0."""
    for part in ranges.split(","):
        match = re.fullmatch(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*", part)
        if match and not _COMPARISONS[match[1]](_compared(version, match[2]), 0):
            return False
    return True


def major(version: str) -> int:
    """13 of 13.0.2; 0 if there is no telling."""
    return (_numbers(version) or [0])[0]


def _compared(left: str, right: str) -> int:
    """Below, at or above 0."""
    for ours, theirs in zip_longest(_numbers(left), _numbers(right), fillvalue=0):
        if ours != theirs:
            return ours - theirs
    return 0


def _numbers(version: str) -> list[int]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return [int(number) for number in match[0].split(".")] if match else []
