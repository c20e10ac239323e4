"""From a checkpoint to a published artifact: convert, gather evidence, prove, then publish or set aside.

Every format goes this way; a conversion only adds how its file is written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tinyres.export import artifact, parity
from tinyres.export.certificate import SCHEMA, Certificate, Flip, Level, certificate_path, grade_of
from tinyres.export.evidence import Gathered, gather_evidence
from tinyres.export.limits import FP32, Limits
from tinyres.export.onnx import onnx_from_checkpoint

import tinyres
from tinyres import environment, records
from tinyres.checkpoint import load_weights
from tinyres.data.dataset import cache_root
from tinyres.errors import BackendUnavailable, CheckpointError, ProofError, TinyresError, UsageError
from tinyres.files import sha256_of, write_bytes
from tinyres.launch import require_same_classes, run_data
from tinyres.progress import Silent
from tinyres.runs import RunConfig, now
from tinyres.runtime.backends import open_runner

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.checkpoint import Checkpoint
    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress
    from tinyres.runtime.runner import Runner

DEFAULT_BATCHES = (1, 32, 256)


@dataclass(frozen=True, slots=True)
class Exported:
    """A published artifact."""

    path: Path
    certificate: Certificate
    certificate_file: Path


def export_onnx(
    source: Path,
    target: Path,
    *,
    dataset: Dataset | None,
    batches: tuple[int, int, int] = DEFAULT_BATCHES,
    proof_images: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress,
) -> Exported:
    """Export the checkpoint `source` to the ONNX file `target` and prove it on ONNX Runtime's CPU provider.

    `dataset` is the run's own; None leaves accuracy unproven. `batches` are least, usual and most.
    Errors: ProofError if it failed (kept in `<target>.rejected/`); CheckpointError, BackendUnavailable, StorageError.
    """
    if source.suffix != ".safetensors":
        raise CheckpointError(f"{source.name} is no checkpoint", hint="export takes a run or its .safetensors")
    checkpoint = load_weights(source)
    if dataset is not None:
        require_same_classes(dataset, checkpoint.spec)
    limits = FP32
    count = proof_images or limits.images
    if count < 1:
        raise UsageError(f"--proof-images {count}: valid: 1 or more")
    with artifact.staging(target) as candidate:
        progress.log(f"converting {source.name} of run {checkpoint.origin.run} to {target.name}")
        write_bytes(candidate, onnx_from_checkpoint(checkpoint))
        gathered = gather_evidence(
            checkpoint, dataset, count=count, cache=cache_root(cache_dir) / "reference", progress=progress
        )
        certificate = prove(candidate, checkpoint, gathered, limits=limits, batches=batches, progress=progress)
        if certificate.grade == "rejected":
            folder = artifact.reject(candidate, target, certificate, reproduce=_reproduction(target, source))
            failed = certificate.failed[0]
            raise ProofError(
                f"{target.name} failed the {failed.name} level: {failed.detail}",
                hint=f"not published; the file, its report and reproduce.py are in {folder}",
            )
        artifact.publish(candidate, target, certificate)
    if certificate.grade == "numeric":
        progress.warn("accuracy not proven: no data of the run was at hand (--data names it)")
    return Exported(target, certificate, certificate_path(target))


def prove(
    candidate: Path,
    checkpoint: Checkpoint,
    gathered: Gathered,
    *,
    limits: Limits,
    batches: tuple[int, int, int],
    progress: Progress,
) -> Certificate:
    """Run the artifact over the evidence and judge every level. A backend that fails on the way fails the proof.

    Errors: BackendUnavailable if the backend's library is absent.
    """
    evidence = gathered.evidence
    with open_runner(candidate) as runner:
        flips: tuple[Flip, ...] = ()
        levels: list[Level] = []
        try:
            answers = _answer_all(runner, evidence.images, batches[1], progress)
        except TinyresError as exc:
            levels.append(Level.failed("numeric", str(exc)))
        else:
            levels.append(parity.numeric(evidence, answers, limits))
            levels.append(parity.decision(evidence, answers, limits))
            levels.append(parity.accuracy(evidence, answers, limits))
            levels.append(_consistency_level(evidence, runner, answers, batches, limits))
            if answers.shape == evidence.checkpoint.shape:
                flips = tuple(parity.find_flips(evidence, answers))
        levels.append(_backend_level(runner))
        origin = checkpoint.origin
        return Certificate(
            schema=SCHEMA,
            tinyres=tinyres.__version__,
            created=now(),
            artifact=candidate.name,
            artifact_sha256=sha256_of(candidate),
            artifact_bytes=candidate.stat().st_size,
            checkpoint_sha256=checkpoint.sha256,
            run=origin.run,
            recipe=origin.recipe,
            trained_on=origin.data_kind,
            backend=runner.name,
            device=runner.device,
            precision=runner.precision,
            batches=batches,
            grade=grade_of(tuple(levels)),
            levels=tuple(levels),
            flips=flips,
            images=gathered.images,
            environment=environment.capture(),
        )


def _answer_all(runner: Runner, images: NDArray[np.uint8], batch: int, progress: Progress) -> NDArray[np.float32]:
    parts = []
    with progress.task("proving", len(images), "images") as task:
        for start in range(0, len(images), batch):
            parts.append(runner(images[start : start + batch]))
            task.advance(len(parts[-1]))
    return np.concatenate(parts)


def _backend_level(runner: Runner) -> Level:
    """The backend opened, so its library gave what was asked: a Runner reads that back and refuses a fallback."""
    return Level.judged("backend", True, {}, {}, f"{runner.name} on {runner.device}, {runner.precision}")


def _consistency_level(
    evidence: parity.Evidence,
    runner: Runner,
    answers: NDArray[np.float32],
    batches: tuple[int, int, int],
    limits: Limits,
) -> Level:
    least, usual, most = batches
    sizes = tuple(sorted({least, usual, most, (usual + most) // 2 - 1 if most - usual > 2 else usual}))
    try:
        return parity.consistency(evidence, runner, answers, sizes, limits)
    except BackendUnavailable as exc:
        return Level.failed("consistency", str(exc))


def _reproduction(target: Path, source: Path) -> str:
    name = target.name
    relative = os.path.relpath(source, artifact.rejected_path(target))
    return f'''"""Prove {name} again. Exits with 3 as long as it fails; needs the package installed.

The same comparison by hand: open {name} with tinyres.open_runner, the checkpoint with
tinyres.open_runner(..., backend="pytorch"), give both the same uint8 pictures, and compare the logits.
"""

import sys
from pathlib import Path

from tinyres.export.pipeline import prove_again

HERE = Path(__file__).resolve().parent
sys.exit(prove_again(HERE / {name!r}, HERE / {relative!r}))
'''


def prove_again(candidate: Path, source: Path) -> int:
    """Judge a rejected file once more and print its levels; the exit code is 3 if it fails, else 0."""
    checkpoint = load_weights(source)
    home = source.resolve().parent / "config.json"
    dataset = run_data(records.load(RunConfig, home), progress=Silent()) if home.is_file() else None
    gathered = gather_evidence(
        checkpoint, dataset, count=FP32.images, cache=cache_root() / "reference", progress=Silent()
    )
    certificate = prove(candidate, checkpoint, gathered, limits=FP32, batches=DEFAULT_BATCHES, progress=Silent())
    for level in certificate.levels:
        print(f"{level.name}: {'passed' if level.passed else 'FAILED'}: {level.detail}")
    return ProofError.exit_code if certificate.grade == "rejected" else 0
