"""How long each contender is timed and in what order: A B C, C B A, ..., so that the machine's drift hits all alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

LARGEST_SWEPT = 256
LIMITS_S = (math.inf, 60.0, 45.0, 30.0, 20.0, 15.0, 10.0, 5.0, 3.0, 1.0)
"""Tried in turn until all fits into the time there is."""


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
    """Each in fresh processes, with a block of every contender and batch size: what a ratio's interval is over."""
    budget_s: float = math.inf
    """The whole bench takes so long at most, where the least number of runs fits into it."""
    side_rounds: int = 2
    """Rounds of what is measured beside the batch sizes asked for: other sizes, several clients."""
    side_s: float = 0.25
    """Their blocks."""
    side_batch_s: float = 0.4
    """Other batch sizes are measured while one batch takes no longer."""
    all_ways: bool = True
    """Whether the ways to run a checkpoint that take long to prepare take part."""


LEAST_ROUNDS = 4
"""Of fewer, intervals are so wide that they rank nothing."""
DEFAULT = Effort(seconds=3.0, runs=100, limit_s=60.0, limit_runs=15, budget_s=600.0)
QUICK = Effort(seconds=1.0, runs=40, limit_s=10.0, limit_runs=8, rounds=5, budget_s=150.0, side_s=0.1, all_ways=False)
THOROUGH = Effort(seconds=10.0, runs=400, limit_s=180.0, limit_runs=32, rounds=16, side_s=1.0, side_batch_s=2.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """One block of timed runs."""

    seconds: float
    least: int
    most: int = 100_000


def plan_block(latency_s: float, effort: Effort) -> Plan:
    """The block that, repeated `rounds` times, is enough at this latency."""
    wanted = max(effort.seconds, effort.runs * latency_s)
    if wanted <= effort.limit_s:
        return Plan(effort.seconds / effort.rounds, -(-effort.runs // effort.rounds))
    return Plan(effort.limit_s / effort.rounds, -(-effort.limit_runs // effort.rounds))


def plan_side_block(effort: Effort) -> Plan:
    """The block for what is measured beside the batch sizes asked for."""
    return Plan(effort.side_s, 2)


def total_seconds(latency_s: float, effort: Effort) -> float:
    """How long all blocks of one contender and batch size take."""
    block = plan_block(latency_s, effort)
    return max(block.seconds, block.least * latency_s) * effort.rounds


def planned_seconds(latencies_s: Sequence[float], effort: Effort, again_s: float) -> float:
    """How long all rounds take, where opening and warming everything `again` does, which the first round needs not."""
    return sum(total_seconds(latency, effort) for latency in latencies_s) + (effort.rounds - 1) * again_s


def fitted(latencies_s: Sequence[float], effort: Effort, seconds: float, again_s: float) -> Effort:
    """`effort` with as many rounds, and as much time for its slow contenders, as fit into `seconds`.

    Rounds go first, down to LEAST_ROUNDS. Every contender still gets `effort.seconds` and `limit_runs`, also where that
    is more than there is.
    """
    smaller = effort
    for limit_s in LIMITS_S:
        for rounds in range(effort.rounds, min(effort.rounds, LEAST_ROUNDS) - 1, -1):
            smaller = replace(effort, limit_s=max(effort.seconds, min(limit_s, effort.limit_s)), rounds=rounds)
            if planned_seconds(latencies_s, smaller, again_s) <= seconds:
                return smaller
    return smaller


def swept_sizes(batches: Sequence[int]) -> list[int]:
    """The batch sizes of the throughput curve that are not measured anyway: powers of two."""
    sizes = [2**power for power in range(LARGEST_SWEPT.bit_length())]
    return [size for size in sizes if size not in batches]


def in_turn(contenders: Sequence[T], number: int) -> Sequence[T]:
    """The contenders in the order of that round: every second one is in reverse."""
    return contenders if number % 2 == 0 else contenders[::-1]


def interleaved(contenders: Sequence[T], rounds: int) -> Iterator[T]:
    """The contenders in order, then in reverse, and so on."""
    for number in range(rounds):
        yield from in_turn(contenders, number)
