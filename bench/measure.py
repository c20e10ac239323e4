"""What `tinyres bench` does: find who takes part, measure, write the reports, compare and judge.

Whatever was asked for wrongly is found before the first contender is opened, since a bench takes minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tinyres import environment
from tinyres.bench import against, gate, results, run, schedule
from tinyres.bench.contenders import find_contenders
from tinyres.bench.reports.terminal import aligned, terminal
from tinyres.bench.reports.write import write_reports
from tinyres.errors import EXIT_INTERRUPTED, BackendUnavailable, TinyresError, UsageError, suggest
from tinyres.files import storage_errors
from tinyres.run_data import data_of, load_spec, require_same_classes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tinyres.bench.against import Change
    from tinyres.bench.results import Results
    from tinyres.bench.schedule import Effort
    from tinyres.progress import Progress
    from tinyres.runs import Model


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure and what to hold it against."""

    backends: tuple[str, ...] | None
    """None for all there are."""
    batches: tuple[int, ...]
    effort: Effort
    threads: int | None
    """None for all cores."""
    images: int | None
    """For accuracy; None for as many as there is time for."""
    data: str | None
    earlier: Path | None
    """A results.json to compare with."""
    fail_if: tuple[str, ...]
    folder: Path | None
    """For the reports; None for the model's own."""
    cache_dir: Path | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it."""

    results: Results
    reports: list[Path]
    changes: list[Change]
    """To the earlier bench."""
    failures: list[str]
    """Conditions that hold, and for which row."""
    passed: list[str]
    """Conditions that hold for no row."""
    exit_code: int


def measure(model: Model, request: Request, *, command: str, progress: Progress) -> Measured:
    """Measure a model in all its forms and write the reports.

    Errors: UsageError, InputError, ProofError, StorageError, before or after; what fails in between costs a row.
    """
    conditions = [gate.parse_condition(text) for text in request.fail_if]
    for condition in conditions:
        if condition.batch is not None and condition.batch not in request.batches:
            raise UsageError(
                f"--fail-if {condition.text!r} is about a batch size that --batch does not name",
                hint=f"--batch {','.join(map(str, sorted({*request.batches, condition.batch})))}",
            )
    threads = request.threads or environment.usable_cores()
    earlier = results.load(request.earlier) if request.earlier is not None else None
    if earlier is not None:
        here = {key: getattr(environment.capture(), key) for key in against.MACHINE}
        here |= {"threads": threads, "affinity": environment.cores_for(threads), "tf32": "off", "scope": run.SCOPE}
        against.require_same_machine(earlier, here, name=str(request.earlier))
    elif any(condition.metric == "slower-than-before" for condition in conditions):
        raise UsageError("--fail-if slower-than-before needs an earlier bench", hint="--against results.json")
    contenders = find_contenders(model, request.backends, all_ways=request.effort.all_ways)
    if all(contender.absent for contender in contenders):
        reasons = "; ".join(f"{contender.name}: {contender.absent}" for contender in contenders)
        raise BackendUnavailable(
            f"nothing can be measured here: {reasons}", hint="tinyres doctor shows what is missing"
        )
    names = [contender.name for contender in contenders]
    for condition in conditions:
        if condition.rows and not any(fnmatchcase(name, condition.rows) for name in names):
            raise UsageError(
                f"--fail-if {condition.text!r}: no contender is called {condition.rows!r}",
                hint=suggest(condition.rows, names),
            )
    folder = request.folder or model.home / "bench"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = data_of(model, request.data, cache_dir=request.cache_dir, progress=progress)
    require_same_classes(dataset, load_spec(model))
    found = run.run_bench(
        contenders,
        dataset,
        run=model.name,
        batches=request.batches,
        effort=request.effort,
        threads=threads,
        images=request.images,
        cache_dir=request.cache_dir,
        command=command,
        progress=progress,
    )
    reports = write_reports(folder, found)
    changes = against.changes(earlier, found) if earlier is not None else []
    before = [row.name for row in earlier.measured] if earlier is not None else []
    failures = gate.failures(found, conditions, changes if earlier is not None else None, before)
    passed = [text for text in request.fail_if if not any(said.startswith(f"{text}: ") for said in failures)]
    return Measured(found, reports, changes, failures, passed, _exit_code(found, failures, request.backends or ()))


def _exit_code(found: Results, failures: Sequence[str], named: Sequence[str]) -> int:
    if found.interrupted:
        return EXIT_INTERRUPTED
    if failures or any(row.status == "failed" for row in found.rows):
        return TinyresError.exit_code
    ran = {row.backend for row in found.measured}
    return 0 if ran and ran.issuperset(named) else BackendUnavailable.exit_code


def describe(measured: Measured, width: int) -> str:
    """For a terminal of that width."""
    parts = [terminal(measured.results, width)]
    if measured.changes:
        parts.append(aligned(against.table(measured.changes), width))
    parts.append("\n".join(f"wrote {path}" for path in measured.reports))
    if measured.passed:
        parts.append("\n".join(f"passed: --fail-if {text!r}" for text in measured.passed))
    return "\n\n".join(parts)


EFFORTS = {"quick": schedule.QUICK, "usual": schedule.DEFAULT, "thorough": schedule.THOROUGH}
