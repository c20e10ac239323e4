"""The actors: one answers parts of a picture set, one proves that its machine answers as it should.

Neither knows of other workers, nor which parts there are.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import platform
import sys
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from output import ANSWER, Output
from sources import UNREADABLE, File, Part, Source

from tinyres import Classifier
from tinyres.decode import pixels_from_bytes
from tinyres.errors import ArtifactError, ProofError, TinyresError
from tinyres.runtime.backends import open_runner

if TYPE_CHECKING:
    from collections.abc import Iterator

DECODERS = 4
"""Threads of a worker that read and decode, at least; Pillow lets go of Python's lock meanwhile."""


class Worker:
    """An actor with one open model: called with a part, it writes the part's file and returns counts."""

    def __init__(
        self, model: str, sha256: str, backend: str | None, threads: int, batch: int, source: Source, output: Output
    ) -> None:
        require_same(model, sha256)
        self.source, self.output, self.batch = source, output, batch
        self.classify = Classifier(model, backend=backend, threads=threads, top=1, batch=batch)
        self.decoders = ThreadPoolExecutor(max(DECODERS, threads))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Answer one part, whatever became of earlier tries: its file is replaced as a whole."""
        start = time.perf_counter()
        part = Part(**json.loads(row["part"]))
        counts = self.output.write_part(part, self._answers(part))
        return counts | {"seconds": time.perf_counter() - start, "peak_mib": peak_mib()}

    def _answers(self, part: Part) -> Iterator[tuple[int, dict[str, Any]]]:
        """Bytes and row of each picture. While one batch is answered the next is decoded; there are never three."""
        waiting: deque[list[Future[tuple[str, int, Any]]]] = deque()
        pictures = self.source.pictures(part, self.batch)
        while batch := list(islice(pictures, self.batch)):
            waiting.append([self.decoders.submit(self._decode, key, content) for key, content in batch])
            if len(waiting) == 2:
                yield from self._infer([future.result() for future in waiting.popleft()])
        for last in waiting:
            yield from self._infer([future.result() for future in last])

    def _decode(self, key: str, content: object) -> tuple[str, int, Any]:
        """The key, bytes read, and the pixels or else why there are none."""
        size = 0
        try:
            if isinstance(content, Exception):
                raise content
            data = self.source.read(content) if isinstance(content, File) else content
            size = len(data)
            return key, size, pixels_from_bytes(data, self.classify.spec.preprocess, name=key)
        except (TinyresError, *UNREADABLE) as exc:
            return key, size, str(exc) or type(exc).__name__

    def _infer(self, decoded: list[tuple[str, int, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        pixels = [found for _, _, found in decoded if not isinstance(found, str)]
        predictions = iter(self.classify(pixels) if pixels else [])
        for key, size, found in decoded:
            answer: dict[str, Any] = dict.fromkeys(ANSWER.names) | {"key": as_text(key)}
            if isinstance(found, str):
                answer["error"] = as_text(found)
            elif math.isfinite((best := next(predictions).best[0]).probability):
                answer |= {"class_id": best.id, "name": best.name, "probability": best.probability}
            else:
                answer["error"] = "the model's answer is not a number"
            yield size, answer


def peak_mib() -> int:
    """The most memory that this process had; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in KiB elsewhere
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


class Prover:
    """An actor that answers golden vectors the way a Worker answers pictures."""

    def prove(self, model: str, sha256: str, golden: dict[str, Any], backend: str | None, threads: int) -> float:
        """The RMS difference of the logits. Errors: ProofError, ArtifactError."""
        here = f"{model} on {platform.node()}"
        require_same(model, sha256)
        differences = []
        with open_runner(model, backend=backend, threads=threads) as runner:
            for number, picture in enumerate(golden["pictures"]):
                pixels = pixels_from_bytes(base64.b64decode(picture["png"]), runner.spec.preprocess)
                expected = np.frombuffer(base64.b64decode(picture["pixels"]), dtype=np.uint8)
                if not np.array_equal(pixels, expected.reshape(picture["shape"])):
                    raise ProofError(f"{here} gets other pixels than when it was exported, of picture {number}")
                logits, ids = runner(pixels[None])[0], runner.spec.class_ids
                wanted = np.array(picture["artifact_logits"], dtype=np.float64)
                if logits.shape != wanted.shape:
                    raise ProofError(f"{here} is another model than that of the golden vectors")
                differences.append(logits - wanted)
                best = int(logits.argmax())
                lead = wanted.max() - wanted[best]
                if ids[int(wanted.argmax())] != picture["label"]:
                    raise ProofError(f"the label of golden picture {number} is not that of its logits")
                if not lead <= 2 * golden["limit"]:  # a tie within rounding may fall to either side
                    raise ProofError(f"{here} says {ids[best]}, not {picture['label']}, of picture {number}")
        rms = float(np.sqrt(np.mean(np.square(differences))))
        if not rms <= golden["limit"]:  # NaN fails
            raise ProofError(f"{here} is off by RMS {rms:.3g}; valid: up to {golden['limit']:.3g}")
        return rms


def require_same(model: str, sha256: str) -> None:
    """Errors: ArtifactError if this machine has another file, or none."""
    if sha256_of(model) != sha256:
        raise ArtifactError(f"{model} on {platform.node()} is not the file that the run was started with")


def sha256_of(path: str) -> str:
    """Errors: ArtifactError if the file cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror or exc}") from exc


def as_text(text: str) -> str:
    """File names need not be UTF-8; Parquet's strings are."""
    return text.encode("utf-8", "backslashreplace").decode()
