"""Our figures beside those of others: `python -m tinyres.bench.studies.peers ARTIFACT`, on a proven .onnx file.

The same file, threads and batch, in turns: the bench's own blocks, a bare loop around the library's call, PyTorch's
`torch.utils.benchmark`, and OpenVINO's `benchmark_app`. Prints one JSON text, with what a Runner costs over the bare
call in the same process. It judges nothing: who differs and why is for docs/bench.md.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyres import environment, records
from tinyres.bench.process import WorkerProcess
from tinyres.bench.schedule import interleaved
from tinyres.bench.statistics import Quantile, Ratio, median, quantile, speedup
from tinyres.errors import BackendUnavailable
from tinyres.runtime.backends import BACKENDS, open_runner
from tinyres.runtime.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Call = Callable[[Pixels], object]

BATCHES = (1, 32)
ROUNDS, BLOCK_S = 12, 0.6
PAIRS = 3000
"""Calls each, ours and the bare one by turns,"""
LONGEST_S = 60
"""but no longer than this."""
COMPARED = ("onnxruntime-cpu", "openvino")


@dataclass(frozen=True, slots=True)
class Figure:
    """One way to measure one backend."""

    backend: str
    batch: int
    measured_by: str
    median_ms: float
    ratio: Ratio | None
    """Of the bench's median to this one, over the rounds; None for the bench itself."""
    blocks_ms: list[list[float]]


@dataclass(frozen=True, slots=True)
class Overhead:
    """What checks and copies of a Runner cost at batch 1."""

    backend: str
    runner_ms: float
    bare_ms: float
    share: Quantile | None
    """The middle of all pairs' Runner / bare - 1, with its 95 % interval."""


def main() -> None:
    """Measure and print, or, told so by ourselves, be a bare process."""
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
        return
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tinyres.bench.studies.peers ARTIFACT")
    path, threads = Path(sys.argv[1]), environment.usable_cores()
    figures = [figure for backend in COMPARED for batch in BATCHES for figure in compare(path, backend, batch, threads)]
    answer = {
        "command": f"python -m tinyres.bench.studies.peers {path.name}",
        "threads": threads,
        "overheads": [overhead(path, backend, threads) for backend in COMPARED],
        "figures": figures,
        "environment": environment.capture(),
    }
    print(records.to_json(answer))


def compare(path: Path, backend: str, batch: int, threads: int) -> list[Figure]:
    """The bench and its peers, block by block in turns."""
    with tempfile.TemporaryDirectory() as folder, WorkerProcess() as ours:
        images = Path(folder) / "images.npy"
        np.save(images, noise(path, 8 * max(BATCHES)))
        cores = environment.cores_for(threads)
        asked: dict[str, Any] = {"path": str(path), "backend": backend, "way": None, "threads": threads, "cores": cores}
        ours.ask("open", images=str(images), **asked)
        command = [
            sys.executable,
            "-m",
            "tinyres.bench.studies.peers",
            "serve",
            str(path),
            backend,
            str(threads),
            str(images),
        ]
        with WorkerProcess(command) as bare:
            ways: dict[str, Callable[[], list[float]]] = {
                "tinyres bench": lambda: _block(ours, "block", batch),
                "a bare loop": lambda: _block(bare, "block", batch),
                "torch.utils.benchmark": lambda: _block(bare, "timer", batch),
            }
            if backend == "openvino":  # which brings it
                ways["benchmark_app"] = lambda: [_benchmark_app(path, batch, threads)]
            blocks: dict[str, list[list[float]]] = {name: [] for name in ways}
            for measure in ways.values():
                measure()  # warm
            for name in interleaved(list(ways), ROUNDS):
                blocks[name].append(ways[name]())
    first = blocks["tinyres bench"]
    figures = []
    for name, found in blocks.items():
        middle = median([sample for block in found for sample in block])
        ratio = None if found is first else speedup(found, first)
        figures.append(Figure(backend, batch, name, middle, ratio, [[round(one, 5) for one in part] for part in found]))
    return figures


def _block(worker: WorkerProcess, do: str, batch: int) -> list[float]:
    reply = worker.ask(do, batch=batch, seconds=BLOCK_S, least=5, most=100_000)
    return [sample / 1e6 for sample in reply["samples_ns"]]


def _benchmark_app(path: Path, batch: int, threads: int) -> float:
    """The median that OpenVINO's own tool reports, in ms."""
    shape = f"image[{batch},{','.join(map(str, noise(path, 1).shape[1:]))}]"
    tool = Path(sys.executable).with_name("benchmark_app")
    command = [str(tool), "-m", str(path), "-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1"]
    command += ["-nthreads", str(threads), "-data_shape", shape, "-t", "1", "-infer_precision", "f32"]
    said = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=120).stdout
    found = re.search(r"Median:\s+([\d.]+) (us|ms)", said)
    if found is None:
        raise BackendUnavailable(f"benchmark_app reported no median: {said[-300:]}")
    return float(found[1]) / (1000 if found[2] == "us" else 1)


def overhead(path: Path, backend: str, threads: int) -> Overhead:
    """A Runner beside the bare call on the very session that it holds, by turns.

    A second session in the process would have threads of its own, which spin for a while after each call.
    """
    images = noise(path, 8)
    opened: Any = importlib.import_module(BACKENDS[backend].module).open_backend(path, threads=threads)
    with Runner(opened) as runner:
        ours, theirs, share = paired(runner, session_call(backend, opened), images)
    return Overhead(backend, ours, theirs, share)


def session_call(backend: str, opened: Any) -> Call:
    """The bare call on the session that an opened backend holds."""
    if backend == "openvino":
        return _openvino_call(opened._compiled.create_infer_request())
    return _onnxruntime_call(opened._session)


def paired(ours: Call, theirs: Call, images: Pixels) -> tuple[float, float, Quantile | None]:
    """The medians of two calls made by turns, in ms, and the middle of all pairs' ours / theirs - 1."""
    our_ms: list[float] = []
    their_ms: list[float] = []
    began = time.monotonic()
    for number in range(PAIRS):
        if time.monotonic() - began > LONGEST_S:
            break
        image = np.ascontiguousarray(images[number % len(images)][None])
        calls: list[tuple[list[float], Call]] = [(our_ms, ours), (their_ms, theirs)]
        for samples, call in calls if number % 2 else reversed(calls):
            before = time.perf_counter_ns()
            call(image)
            samples.append((time.perf_counter_ns() - before) / 1e6)
    shares = [a / b - 1 for a, b in zip(our_ms, their_ms, strict=True)]
    return median(our_ms), median(their_ms), quantile(shares, 0.5)


def _bare_call(backend: str, path: Path, threads: int) -> Call:
    """What a program without us would write, with the same settings."""
    if backend == "onnxruntime-cpu":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return _onnxruntime_call(session)
    import openvino
    from openvino.properties import hint, inference_num_threads

    config: dict[Any, Any] = {hint.inference_precision: openvino.Type.f32, inference_num_threads: threads}
    config[hint.performance_mode] = hint.PerformanceMode.LATENCY
    compiled = openvino.Core().compile_model(str(path), "CPU", config)
    return _openvino_call(compiled.create_infer_request())


def _onnxruntime_call(session: Any) -> Call:
    return lambda images: session.run(["logits"], {"image": images})


def _openvino_call(request: Any) -> Call:
    return lambda images: request.infer({"image": images}, share_inputs=True)["logits"]


def serve(path: str, backend: str, threads: str, images: str) -> None:
    """Answer commands like the bench's own worker, around the bare call."""
    call, pictures = _bare_call(backend, Path(path), int(threads)), np.load(images)
    for line in sys.stdin:
        asked = json.loads(line)
        batch, seconds = asked["batch"], asked["seconds"]
        inputs = [np.ascontiguousarray(pictures[at * batch : (at + 1) * batch]) for at in range(8)]
        if asked["do"] == "timer":
            from torch.utils.benchmark import Timer

            timer = Timer("call(image)", globals={"call": call, "image": inputs[0]}, num_threads=int(threads))
            samples = [round(sample * 1e9) for sample in timer.blocked_autorange(min_run_time=seconds).times]
        else:
            samples = _loop(call, inputs, seconds)
        print(json.dumps({"ok": {"samples_ns": samples}}), flush=True)


def _loop(call: Call, inputs: list[Pixels], seconds: float) -> list[int]:
    samples: list[int] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        image = inputs[len(samples) % len(inputs)]
        before = time.perf_counter_ns()
        call(image)
        samples.append(time.perf_counter_ns() - before)
    return samples


def noise(path: Path, count: int) -> Pixels:
    """Pictures of noise, of the size that an artifact takes."""
    with open_runner(path, threads=1) as runner:
        shape = runner.spec.input_shape
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


if __name__ == "__main__":
    main()
