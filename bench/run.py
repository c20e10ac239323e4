"""A bench from start to end: open every contender, judge it, warm it, time all in turns, and return the results.

It writes no report and prints nothing; `reports` does.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres import environment
from tinyres.bench import answers, schedule
from tinyres.bench.lane import absent_row
from tinyres.bench.phases import Bench
from tinyres.bench.results import SCHEMA, Results
from tinyres.runs import now

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
    bench = Bench(batches, effort, threads or environment.usable_cores(), progress)
    interrupted = False
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinyres-bench-")))
        pictures = answers.choose_pictures(dataset, folder, images or answers.IMAGES)
        try:
            bench.open([one for one in contenders if not one.absent], pictures.path, folder, worker, stack)
            bench.leave_out_slow_halves()
            bench.judge(pictures, answers.Kept(cache_dir), folder, all_of_them=images is not None)
            bench.time_batches()
            bench.time_other_batches()
            bench.time_clients()
        except KeyboardInterrupt:
            if not any(series.blocks for lane in bench.lanes for series in lane.by_batch.values()):
                raise
            interrupted = True
            progress.warn("interrupted: what was measured until now is kept")
            for lane in bench.lanes:
                lane.worker.kill()
    rows = {lane.contender.name: lane.row() for lane in bench.lanes}
    return Results(
        schema=SCHEMA,
        created=now(),
        command=command,
        run=run,
        data_kind=dataset.manifest.kind,
        split=dataset.judged_on,
        threads=bench.threads,
        affinity=bench.cores,
        tf32="off",
        scope=SCOPE,
        batches=sorted(batches),
        seconds=round(bench.elapsed_s, 1),
        interrupted=interrupted,
        baseline=bench.baseline.contender.name if bench.baseline is not None else "",
        environment=environment.capture(),
        rows=[rows.get(contender.name) or absent_row(contender) for contender in contenders],
    )
