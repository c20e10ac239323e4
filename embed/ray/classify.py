"""Classify picture sets of any size with Ray Data: each picture exactly once, also when workers or this program die.

    python classify.py MODEL SOURCE OUT [--workers 8] [--address auto]
    python classify.py MODEL --verify

The source is cut into parts, the same at every run. A worker answers a part as a whole and gives its file the final
name only when it is complete, so a part is there or it is not, and the next run does those that are not. Nothing else
is remembered: Ray carries names and counts, never pictures or answers. README.md says what is written where.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import output
import pyarrow as pa
import ray
import ray.data
import sources
import worker
from output import COUNTS, Output
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from sources import ENDINGS, Part, Source, cut_source, open_place
from worker import Prover, Worker, sha256_of

from tinyres.errors import EXIT_INTERRUPTED, ArtifactError, TinyresError, UsageError
from tinyres.runtime.backends import open_runner

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 3
"""How often a part is begun again when its worker dies or fails; then the rest goes on without it."""
MOST_BLOCKS = 20_000
"""A block, which Ray tries and gives up as one, is one part up to here; with more parts it is several."""
PROGRESS_S = 10
"""Between two lines of progress."""


@dataclass
class Ran:
    """What this run did itself."""

    images: int = 0
    answering_seconds: float = 0.0
    """From the start of the workers to the last part."""
    worker_seconds: float = 0.0
    """Of all workers together, inside parts."""
    peak_worker_mib: int = 0
    stopped: str | None = None
    """What ended it early."""


def classify_all(options: argparse.Namespace) -> int:
    """Do the parts that OUT lacks, write what came of it, and return the exit code."""
    start = time.perf_counter()
    require_model(options)
    if f"{options.out.rstrip('/')}/".startswith(f"{options.source.rstrip('/')}/"):
        raise UsageError(f"{options.out} lies in {options.source}: its files would become part of the source")
    chosen = {name: getattr(options, name) for name in ("kind", "column", "key", "part_images")}
    source, parts, fingerprint = cut_source(options.source, **chosen)
    job = {"schema": 1, "model_sha256": sha256_of(options.model), "backend": options.backend, "source": options.source}
    job |= {"kind": source.kind, "column": source.column, "key": source.key, "part_images": options.part_images}
    job |= {"parts": len(parts), "source_sha256": fingerprint}
    out = Output(*open_place(options.out))
    out.claim(options.out, job)
    before = out.read_counts(parts)
    skipped = {name for name, counts in before.items() if not (options.retry_failed and counts["failed"])}
    wanted = [part for part in parts if part.name not in skipped]
    ran = run_parts(wanted, source, out, options) if wanted else Ran()
    counts = out.read_counts(parts)
    out.write_failures(name for name, count in counts.items() if count["failed"])
    total: dict[str, Any] = {name: sum(count[name] for count in counts.values()) for name in COUNTS}
    still_open = [part for part in parts if part.name not in counts]
    rate = ran.images / ran.answering_seconds if ran.answering_seconds else None
    this_run = asdict(ran) | {"images_per_second": rate, "seconds": time.perf_counter() - start}
    summary = total | {"parts": len(parts), "parts_skipped": len(skipped), "parts_open": [p.name for p in still_open]}
    summary |= {"bytes_written": out.bytes_written(), "this_run": this_run, "model": options.model, "job": job}
    out.write_text("summary.json", json.dumps(summary | about_cluster(options), indent=1) + "\n")
    print(
        f"{total['images']:,} images, {total['failed']:,} failed; {len(counts)} of {len(parts)} parts, of which "
        f"{len(skipped)} were there; {this_run['seconds']:.1f} s" + (f", {rate:,.0f} images/s" if rate else "")
    )
    for part in still_open[:20]:
        print(f"not answered: {part.name} ({part.paths[0]} ...)", file=sys.stderr)
    if still_open:
        reason = ran.stopped or "their workers died or failed each time"
        print(f"error: {len(still_open)} parts are not answered: {reason}", file=sys.stderr)
        print("hint: run the same command again; it does only these", file=sys.stderr)
    elif total["failed"] == total["images"]:
        why = "failures.jsonl says why" if total["images"] else "the source holds none"
        print(f"error: no picture could be answered; {why}", file=sys.stderr)
    return int(bool(still_open) or total["failed"] == total["images"])


def run_parts(parts: list[Part], source: Source, out: Output, options: argparse.Namespace) -> Ran:
    """Have the workers answer `parts`. What stops them is told, not raised: the parts that are done count."""
    start_ray(options)
    options.workers = min(options.workers, len(parts))
    ran, began, shown = Ran(), time.perf_counter(), 0.0
    try:
        for done, row in enumerate(answered(parts, source, out, options), 1):
            ran.images += row["images"]
            ran.worker_seconds += row["seconds"]
            ran.peak_worker_mib = max(ran.peak_worker_mib, row["peak_mib"])
            ran.answering_seconds = time.perf_counter() - began
            if ran.answering_seconds - shown > PROGRESS_S:
                shown = ran.answering_seconds
                print(f"{done} of {len(parts)} parts, {ran.images / shown:,.0f} images/s", file=sys.stderr, flush=True)
    except Exception as exc:  # noqa: BLE001 - Ray raises its own, Python's and its libraries' errors
        ran.stopped = f"{type(exc).__name__}: {last_line(exc)}"
    return ran


def answered(parts: list[Part], source: Source, out: Output, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The counts of each part as it is done, in any order; of one that is given up there are none."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.actor_task_retry_on_errors = True  # a full disk or a failing network may pass
    context.max_errored_blocks = -1  # a part that is given up must not stop the others
    # Ray 2.60 deprecates max_task_retries without a successor; README.md names the versions this is for.
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
    items = [{"part": json.dumps(asdict(part))} for part in parts]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).map(
        Worker,
        fn_constructor_kwargs={
            "model": options.model,
            "sha256": sha256_of(options.model),
            "backend": options.backend,
            "threads": options.cpus_per_worker,
            "batch": options.batch,
            "source": source,
            "output": out,
        },
        # One part at a time each: those waiting at an actor that dies would lose one of their tries as well.
        compute=ray.data.ActorPoolStrategy(size=options.workers, max_tasks_in_flight_per_actor=1),
        num_cpus=options.cpus_per_worker,
        num_gpus=options.gpus_per_worker or None,
        max_restarts=-1,
        max_task_retries=TRIES,  # Ray's default is without end: one part that kills its worker would hold up the rest
    )
    yield from dataset.iter_rows()


def start_ray(options: argparse.Namespace) -> None:
    """Join the cluster at --address or start one here, and settle the number of workers. Errors: UsageError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else a note on how actors restart, at each run
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # a part that is given up is told at this level
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if options.address:
        try:
            ray.init(address=options.address, **quiet)
        except (ConnectionError, ValueError) as exc:
            raise UsageError(f"no Ray cluster answers at {options.address}: {exc}", hint="ray start --head") from exc
    else:
        ray.init(address="local", include_dashboard=False, object_store_memory=2**29, **quiet)
    for module in (sources, output, worker):  # other machines need no copy of this folder
        ray.cloudpickle.register_pickle_by_value(module)
    if not usable_nodes(options):
        raise UsageError(
            f"no machine has {options.cpus_per_worker} CPUs and {options.gpus_per_worker} GPUs for a worker"
        )
    hold = int(ray.cluster_resources()["CPU"] // options.cpus_per_worker)
    if options.gpus_per_worker:
        hold = min(hold, int(ray.cluster_resources()["GPU"] / options.gpus_per_worker))
    options.workers = options.workers or hold
    if options.workers > hold:  # a cluster that grows may have room later
        print(f"note: there is room for {hold} workers of {options.workers} at present", file=sys.stderr)


def usable_nodes(options: argparse.Namespace) -> list[str]:
    """The ids of the machines that can hold a worker."""
    enough = {"CPU": options.cpus_per_worker, "GPU": options.gpus_per_worker}
    alive = [node for node in ray.nodes() if node["Alive"]]
    fits = [n for n in alive if all(n["Resources"].get(kind, 0) >= amount for kind, amount in enough.items())]
    return [node["NodeID"] for node in fits]


def verify(options: argparse.Namespace) -> int:
    """Prove the model on every machine of the cluster. Errors: ArtifactError, ProofError."""
    path = f"{options.model}.golden.json"
    try:
        golden = json.loads(Path(path).read_text(encoding="utf-8"))
        usable = golden["schema"] == 2 and 0 < golden["limit"] < math.inf and len(golden["pictures"])
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror or exc}", hint="tinyres export writes it") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise ArtifactError(f"{path} holds no golden vectors: {exc!r}", hint="export again") from exc
    if not usable:
        raise ArtifactError(f"{path} holds no golden vectors of schema 2", hint="export again")
    sha256 = sha256_of(options.model)
    require_model(options)
    start_ray(options)
    prover = ray.remote(num_cpus=options.cpus_per_worker, num_gpus=options.gpus_per_worker)(Prover)
    provers = [
        prover.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in usable_nodes(options)
    ]
    given = (options.model, sha256, golden, options.backend, options.cpus_per_worker)
    worst = max(ray.get([actor.prove.remote(*given) for actor in provers]))
    what = f"{len(golden['pictures'])} pictures on each of {len(provers)} machines"
    print(f"proven: {options.model}: {what}, RMS {worst:.2g} <= {golden['limit']:.2g}")
    return 0


def require_model(options: argparse.Namespace) -> None:
    """Errors: TinyresError if MODEL is none, here and now instead of in every worker."""
    if not options.gpus_per_worker:  # where this program runs there may be no GPU
        open_runner(options.model, backend=options.backend, threads=1).close()


def last_line(error: BaseException) -> str:
    """Ray puts tracebacks of other processes before it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def about_cluster(options: argparse.Namespace) -> dict[str, Any]:
    """What an estimate for another machine or more images needs to know."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    chosen = {name: getattr(options, name) for name in ("workers", "cpus_per_worker", "gpus_per_worker", "batch")}
    cluster = {"machines": len(ray.nodes()), "cluster": ray.cluster_resources()} if ray.is_initialized() else {}
    runtime = "onnxruntime-gpu" if options.gpus_per_worker else "onnxruntime"
    packages = ("ray", "pyarrow", "tinyres", runtime, "numpy", "pillow")
    return chosen | cluster | {"cpu": cpu, "versions": {name: version_of(name) for name in packages}}


def version_of(package: str) -> str | None:
    """None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_options(words: list[str] | None) -> argparse.Namespace:
    """The command line, checked; places become absolute. Errors: UsageError."""
    reader = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    reader.add_argument("model", help="an exported file, the same on every machine")
    reader.add_argument("source", nargs="?", help="a folder of pictures, Parquet files or .tar shards; path or URI")
    reader.add_argument("out", nargs="?", help="a folder that need not exist; the same to go on")
    reader.add_argument("--verify", action="store_true", help="prove the model on every machine, and end")
    reader.add_argument("--workers", type=int, default=0, help="default: as many as the cluster holds")
    reader.add_argument("--part-images", type=int, default=1000, help="of a folder, in one part (default: 1000)")
    reader.add_argument("--batch", type=int, default=64, help="pictures answered at once (default: 64)")
    reader.add_argument("--cpus-per-worker", type=int, default=1, help="and threads (default: 1)")
    reader.add_argument("--gpus-per-worker", type=float, default=0, help="0.5: two workers share one (default: 0)")
    reader.add_argument("--backend", help="of tinyres; default: by the file, onnxruntime-cuda for .onnx on GPUs")
    reader.add_argument("--kind", choices=ENDINGS, help="of the source, where it holds several")
    reader.add_argument("--column", help="of Parquet, with the pictures' bytes (default: the first of bytes)")
    reader.add_argument("--key", help="of Parquet, that names the pictures (default: file and row)")
    reader.add_argument("--retry-failed", action="store_true", help="do the parts with failures again")
    reader.add_argument("--address", help="of a Ray cluster, auto: the one here (default: start one, end it)")
    options = reader.parse_args(words)
    if not options.verify and not (options.source and options.out):
        raise UsageError("SOURCE and OUT are missing", hint="MODEL SOURCE OUT, or MODEL --verify")
    if min(options.part_images, options.batch, options.cpus_per_worker) < 1 or options.workers < 0:
        raise UsageError("--part-images, --batch, --cpus-per-worker and --workers must be at least 1")
    if options.gpus_per_worker and options.backend is None and options.model.endswith(".onnx"):
        options.backend = "onnxruntime-cuda"
    options.model = Path(options.model).resolve().as_posix()
    for name in ("source", "out"):
        place = getattr(options, name)
        if place and "://" not in place:
            setattr(options, name, Path(place).resolve().as_posix())  # Arrow's paths, on every system
    return options


def main(words: list[str] | None = None) -> int:
    """The exit code: 0 done, 1 parts are not answered, 2 bad usage or input, 3 the model is not what was proven."""
    try:
        options = read_options(words)
        return verify(options) if options.verify else classify_all(options)
    except ray.exceptions.RayTaskError as exc:  # before TinyresError: it is one as well if its cause is
        cause = exc.cause if isinstance(exc.cause, TinyresError) else exc
        print(f"error: {last_line(cause)}", file=sys.stderr)
        return cause.exit_code if isinstance(cause, TinyresError) else 1
    except TinyresError as exc:
        print(f"error: {exc}", *([f"hint: {exc.hint}"] if exc.hint else []), sep="\n", file=sys.stderr)
        return exc.exit_code
    except (OSError, pa.ArrowException, ray.exceptions.RayError) as exc:
        print(f"error: {last_line(exc)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
