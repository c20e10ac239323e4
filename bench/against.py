"""A bench beside an earlier one of the same machine. Another machine is refused, with what differs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres.bench.reports.tables import Table, p50_s
from tinyres.bench.statistics import Ratio, change
from tinyres.errors import UsageError
from tinyres.units import milliseconds

if TYPE_CHECKING:
    from tinyres.bench.results import Measurement, Results

MACHINE = ("os", "machine", "cpu", "instruction_sets", "cores", "gpu")
"""Of the environment; memory may differ by what a system reserves."""
SETTINGS = ("threads", "affinity", "tf32", "scope")


@dataclass(frozen=True, slots=True)
class Change:
    """A contender and batch size in both."""

    name: str
    batch: int
    before_s: float
    after_s: float
    speedup: Ratio
    """How many times faster it is now."""

    @property
    def slower(self) -> bool:
        """Beyond what the blocks of the two differ by among themselves."""
        return self.speedup.significant and self.speedup.value < 1


def require_same_machine(old: Results, machine: dict[str, object], *, name: str) -> None:
    """`machine` is what `machine_of` says of the other. Errors: UsageError that names what differs."""
    before = machine_of(old)
    differing = [f"{key}: {before[key]}, here {machine[key]}" for key in before if before[key] != machine.get(key)]
    if differing:
        raise UsageError(
            f"{name} was measured on another machine or with other settings: {'; '.join(differing)}",
            hint="times of different machines say nothing about each other; measure the old files again, here",
        )


def machine_of(results: Results) -> dict[str, object]:
    """What must be the same for times to be comparable."""
    found: dict[str, object] = {key: getattr(results.environment, key) for key in MACHINE}
    return {**found, **{key: getattr(results, key) for key in SETTINGS}}


def changes(old: Results, new: Results) -> list[Change]:
    """Every contender and batch size that both have. Errors: UsageError if they are of different machines."""
    require_same_machine(old, machine_of(new), name=f"the bench of {old.created}")
    found = []
    for row in new.measured:
        before = old.row(row.name)
        if before is None or before.status != "ok":
            continue
        for batch in new.batches:
            was, now = before.at(batch), row.at(batch)
            if was is not None and now is not None:
                ratio = change(_blocks(was), _blocks(now))
                found.append(Change(row.name, batch, p50_s(was), p50_s(now), ratio))
    return found


def _blocks(found: Measurement) -> list[list[int]]:
    return [block.samples_ns for block in found.kept.values()]


def table(found: list[Change]) -> Table:
    """For people."""
    rows = []
    for one in found:
        ratio = one.speedup
        shown = f"{ratio.value:.2f}x" if ratio.significant else "n.s."
        between = f"{ratio.low:.2f} to {ratio.high:.2f}" if math.isfinite(ratio.high) else "-"
        times = (milliseconds(one.before_s), milliseconds(one.after_s))
        rows.append((one.name, str(one.batch), *times, shown, between))
    return Table("against the earlier bench", ("contender", "batch", "before", "now", "faster", "99 %"), rows)
