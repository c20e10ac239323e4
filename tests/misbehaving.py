"""A contender's process in which the name of the file says how its backend behaves; started by the tests."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinyres.bench import worker
from tinyres.bench.contenders import Contender
from tinyres.bench.schedule import Effort
from tinyres.errors import BackendUnavailable
from tinyres.runtime.fake import FakeBackend
from tinyres.runtime.runner import Precision, Runner
from tinyres.spec import ModelSpec, Preprocess

SPEC = ModelSpec(
    class_names=("a", "b", "c"),
    class_ids=("1", "2", "3"),
    blocks=(1,),
    widths=(8,),
    preprocess=Preprocess(image_size=16),
)
TIMED = threading.Event()
"""The timed blocks have begun: opening, judging and warming up are over."""
WORKER = [sys.executable, __file__]
SHORT = Effort(
    seconds=0.2,
    runs=60,
    limit_s=2.0,
    limit_runs=4,
    rounds=2,
    side_s=0.01,
    side_batch_s=0.002,
    side_rounds=1,
)
Pixels = np.ndarray


def logits(images: Pixels) -> np.ndarray:
    return np.ascontiguousarray(images.reshape(len(images), -1)[:, 100:103], dtype=np.float32) / 255


def hang(_images: Pixels) -> np.ndarray:
    threading.Event().wait()
    raise AssertionError


def crash(_images: Pixels) -> np.ndarray:
    print("segment violated", file=sys.stderr, flush=True)
    os._exit(11)


def killed(_images: Pixels) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    return hang(_images)


def too_large(_images: Pixels) -> np.ndarray:
    raise MemoryError("Unable to allocate 9 TiB")


LATE: dict[str, Callable[[Pixels], np.ndarray]] = {
    "hangs": hang,
    "crashes": crash,
    "killed": killed,
    "memory": too_large,
    "otherwise": lambda images: logits(images)[:, ::-1].copy(),
}
ALWAYS: dict[str, Callable[[Pixels], np.ndarray]] = {
    "wrong": lambda images: logits(images)[:, ::-1].copy(),
    "nan": lambda images: logits(images) * np.nan,
    "alike": lambda images: np.ones((len(images), 3), dtype=np.float32),
}


def contenders(folder: Path, names: tuple[str, ...]) -> list[Contender]:
    for name in names:
        (folder / f"{name}.onnx").write_bytes(b"x")
    return [Contender("onnxruntime-cpu", folder / f"{name}.onnx", "0", "full", "") for name in names]


def open_runner(path: Path, **_options: object) -> Runner:
    name = path.stem
    if name == "absent":
        raise BackendUnavailable("no such device", hint="buy one")
    if name == "fickle":
        name = "wrong" if path.with_suffix(".seen").exists() else "honest"
        path.with_suffix(".seen").touch()

    def answer(images: Pixels) -> np.ndarray:
        if name == "astray" and len(images) == 8:  # wrong beside what was asked for is wrong all the same
            return logits(images)[:, ::-1].copy()
        if name in LATE and TIMED.is_set():
            return LATE[name](images)
        if name == "crowded" and len(images) == 8:  # not asked for, but part of the curve
            raise MemoryError("Unable to allocate 9 TiB")
        if name == "emulated":
            sum(range(20_000 * len(images)))  # half precision without arithmetic for it
        return ALWAYS.get(name, logits)(images)

    backend = FakeBackend(SPEC, answer)
    backend.device = "cpu"
    if name in ("emulated", "half"):
        backend.precision = Precision("bf16", "bf16")
    return Runner(backend)


if __name__ == "__main__":
    worker.open_runner = open_runner  # type: ignore[assignment]
    time_block = worker.Worker.block

    def block(self: worker.Worker, **asked: int) -> object:
        TIMED.set()
        return time_block(self, **asked)  # type: ignore[arg-type]

    worker.Worker.block = block  # type: ignore[method-assign, assignment]
    worker.main()
