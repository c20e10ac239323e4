"""A bench from start to end: open every contender, judge it, warm it, time all in turns, and return the results.

It writes no report and prints nothing; `reports` does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres import environment
from tinyres.bench import answers, schedule
from tinyres.bench.lane import Setting, absent_row
from tinyres.bench.phases import Bench
from tinyres.bench.results import SCHEMA, Results
from tinyres.runs import now
from tinyres.units import counted, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyres.bench.contenders import Contender
    from tinyres.bench.schedule import Effort
    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress

SCOPE = "host array in, host logits out"


def run_bench(
    contenders: Sequence[Contender],
    dataset: Dataset,
    *,
    run: str,
    batches: Sequence[int],
    effort: Effort = schedule.DEFAULT,
    command: str,
    threads: int | None = None,
    images: int | None = None,
    cache_dir: Path | None = None,
    worker: Sequence[str] = (),
    progress: Progress,
) -> Results:
    """Measure every contender that is not absent. A contender that fails costs its own row only.

    Accuracy is over `images`; without a number, over as many of a thousand as there is time for. Ctrl-C ends the bench
    with what was measured until then. `worker` is the command of a contender's process, else ours.
    """
    present = [contender for contender in contenders if not contender.absent]
    threads = threads or environment.usable_cores()
    cores, interrupted = environment.cores_for(threads), False
    limit = f", {duration(effort.budget_s)} at most" if effort.budget_s < float("inf") else ""
    on = f" on cores {', '.join(map(str, cores))}" if cores else ""
    progress.log(
        f"measuring {counted(len(present), 'contender')}: {counted(threads, 'thread')} each{on}, TF32 off{limit}"
    )
    with tempfile.TemporaryDirectory(prefix="tinyres-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        pictures = answers.choose_pictures(dataset, folder, images or answers.IMAGES)
        setting = Setting(threads, cores, pictures.path, folder, worker)
        with Bench(present, setting, batches, effort, progress) as bench:
            try:
                bench.open()
                bench.leave_out_slow_halves()
                bench.judge(pictures, answers.Kept(cache_dir), all_of_them=images is not None)
                bench.time_batches()
                bench.time_clients()
                bench.time_other_batches()  # what is cut for lack of time are the largest
            except KeyboardInterrupt:
                if not bench.has_blocks:
                    raise
                interrupted = True
                progress.warn("interrupted: what was measured until now is kept")
                bench.kill()
            bench.settle_baseline()
    rows = {lane.contender.name: lane.row() for lane in bench.lanes}
    return Results(
        schema=SCHEMA,
        created=now(),
        command=command,
        run=run,
        data_kind=dataset.manifest.kind,
        split=dataset.judged_on,
        threads=threads,
        affinity=cores,
        tf32="off",
        scope=SCOPE,
        batches=sorted(batches),
        seconds=round(bench.elapsed_s, 1),
        interrupted=interrupted,
        baseline=bench.baseline.contender.name if bench.baseline is not None else "",
        environment=environment.capture(),
        rows=[rows.get(contender.name) or absent_row(contender) for contender in contenders],
    )
