"""How long each contender is timed and in what order: A B C, C B A, ..., so that the machine's drift hits all alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much measuring is enough."""

    seconds: float
    runs: int
    """Both are reached, or..."""
    limit_s: float
    limit_runs: int
    """... this time is over and at least so many runs are made."""
    rounds: int = 8
    """Blocks a contender and batch size: what a ratio's interval is over."""


DEFAULT = Effort(seconds=3.0, runs=100, limit_s=60.0, limit_runs=15)
QUICK = Effort(seconds=1.0, runs=40, limit_s=10.0, limit_runs=8)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of timed runs."""

    seconds: float
    least: int
    most: int


def plan_block(latency_s: float, effort: Effort) -> Block:
    """The block that, repeated `rounds` times, is enough at this latency."""
    wanted = max(effort.seconds, effort.runs * latency_s)
    if wanted <= effort.limit_s:
        return Block(effort.seconds / effort.rounds, -(-effort.runs // effort.rounds), 100_000)
    return Block(effort.limit_s / effort.rounds, -(-effort.limit_runs // effort.rounds), 100_000)


def total_seconds(latency_s: float, effort: Effort) -> float:
    """How long all blocks of one contender and batch size take."""
    block = plan_block(latency_s, effort)
    return max(block.seconds, block.least * latency_s) * effort.rounds


def interleaved(contenders: Sequence[T], rounds: int) -> Iterator[T]:
    """The contenders in order, then in reverse, and so on."""
    for number in range(rounds):
        yield from contenders if number % 2 == 0 else reversed(contenders)
