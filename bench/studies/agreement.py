"""Whether two benches rank alike: `python -m tinyres.bench.studies.agreement A/results.json B/results.json`.

Of every pair of contenders at every batch size that was asked for: which is significantly faster in each. Prints one
JSON text; exit code 1
if they contradict each other or have nothing in common.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from tinyres import records
from tinyres.bench import results
from tinyres.bench.against import machine_of, require_same_machine
from tinyres.bench.reports.tables import ratio_to


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two benches of one machine say of the same pairs."""

    first: str
    second: str
    """When they were made."""
    pairs: int
    both: int
    """Significant in both, and the same way round."""
    one: int
    """Significant in one alone."""
    neither: int
    contradictions: list[str]


def agreement(first: results.Results, second: results.Results) -> Agreement:
    """Compare every ranking. Errors: UsageError for benches of different machines."""
    require_same_machine(first, machine_of(second), name="the first")
    shared = [row.name for row in first.measured if (other := second.row(row.name)) in second.measured and other]
    verdicts = {
        (batch, *pair): (_faster(first, *pair, batch), _faster(second, *pair, batch))
        for batch in first.batches
        if batch in second.batches
        for pair in combinations(shared, 2)
    }
    ways = list(verdicts.values())
    against = [f"batch {batch}: {a}, {b}" for (batch, a, b), (one, two) in verdicts.items() if one * two < 0]
    return Agreement(
        first.created,
        second.created,
        pairs=len(ways),
        both=sum(one * two > 0 for one, two in ways),
        one=sum(one * two == 0 and one != two for one, two in ways),
        neither=sum(one == two == 0 for one, two in ways),
        contradictions=against,
    )


def _faster(found: results.Results, name: str, other: str, batch: int) -> int:
    """1 if `name` is significantly faster than `other`, -1 if it is slower, 0 if neither."""
    row = found.row(name)
    ratio = ratio_to(row, found.row(other), batch) if row is not None else None
    if ratio is None or not ratio.significant:
        return 0
    return 1 if ratio.value > 1 else -1


def main() -> None:
    """Compare the two files that the arguments name."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m tinyres.bench.studies.agreement A/results.json B/results.json")
    found = agreement(*(results.load(Path(name)) for name in sys.argv[1:]))
    print(records.to_json(found))
    raise SystemExit(1 if found.contradictions or not found.pairs else 0)


if __name__ == "__main__":
    main()
