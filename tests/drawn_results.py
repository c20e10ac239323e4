"""Results made by hand: rows with known latencies and accuracies, for reports, conditions and comparisons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyres.bench.results import (
    SCHEMA,
    Block,
    ColdStart,
    Load,
    Measurement,
    Parity,
    ProofLevel,
    Results,
    Row,
)
from tinyres.environment import Environment
from tinyres.metrics import Accuracy, wilson_interval
from tinyres.runtime.runner import Number, Precision

HERE = Environment("Linux", "x86_64", "3.11", "A CPU", ("avx2",), 2, 1 << 34, None, {"numpy": "2.0"})


def blocks(median_ms: float, *, seed: int, rounds: int = 8, runs: int = 60, spread: float = 0.02) -> list[Block]:
    rng = np.random.default_rng(seed)
    samples = median_ms * 1e6 * np.exp(spread * rng.normal(size=(rounds, runs)))
    return [Block(n, float(s.sum() / 1e9), [int(v) for v in s]) for n, s in enumerate(samples)]


def row(
    name: str,
    *,
    p50_ms: float,
    correct: int = 600,
    gained: int = 0,
    lost: int = 0,
    number: Number = "fp32",
    proof: str = "full",
    seed: int = 0,
    runs: int = 60,
) -> Row:
    low, high = wilson_interval(correct, 1000)
    backend, _, way = name.partition(" ")
    speeds = {1: p50_ms, 4: p50_ms * 2, 32: p50_ms * 12, 64: p50_ms * 25}
    return Row(
        name=name,
        backend=backend,
        way=way if backend == "pytorch" else "",
        artifact=f"{way}.onnx",
        artifact_sha256="ab" * 32,
        artifact_bytes=10 * 2**20,
        status="ok",
        reason="",
        proof=proof,
        levels=[ProofLevel("numeric", True, "error 1e-7 of the signal")] if proof != "reference" else [],
        device="cpu",
        evidence="CPUExecutionProvider",
        precision=Precision(number, number),
        cold=[ColdStart(0.2, 0.1, 0.01), ColdStart(0.3, 0.1, 0.01)],
        peak_memory_bytes=200 * 2**20,
        device_memory_bytes=None,
        accuracy=Accuracy(1000, correct, 900, low, high),
        gained=gained,
        lost=lost,
        parity=Parity(1000, 1000 - gained - lost, 1e-6, 2e-3),
        measurements=[
            Measurement(batch, 10, steady=True, blocks=blocks(ms, seed=seed + batch, runs=runs if batch < 4 else 8))
            for batch, ms in speeds.items()
        ],
        loads=[Load(n, blocks(p50_ms * n, seed=seed, rounds=2)) for n in (1, 2, 4, 8)],
    )


def failed(name: str) -> Row:
    return replace(row(name, p50_ms=1), status="failed", reason="it crashed", measurements=[], loads=[])


def results(*rows: Row) -> Results:
    return Results(
        schema=SCHEMA,
        created="2026-01-01T00:00:00+00:00",
        command="tinyres bench mine",
        run="mine",
        data_kind="folder",
        split="val",
        threads=2,
        affinity=[0, 1],
        tf32="off",
        scope="host array in, host logits out",
        batches=[1, 32],
        seconds=100.0,
        interrupted=False,
        baseline=rows[0].name,
        environment=HERE,
        rows=list(rows),
    )


PYTORCH = row("pytorch eager", p50_ms=8, proof="reference", seed=1)
FP32 = row("onnxruntime-cpu fp32", p50_ms=3, seed=2)
INT8 = row("openvino int8-cpu", p50_ms=1, correct=590, gained=10, lost=20, number="int8", proof="sampled", seed=3)
SLOW = row("onnxruntime-cpu fp16", p50_ms=9, number="fp16", seed=4)
ALL = results(PYTORCH, FP32, INT8, SLOW, failed("openvino fp32"))
