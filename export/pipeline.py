"""From a checkpoint to a published artifact: convert, gather evidence, prove, then publish or set aside.

Every format goes this way; a conversion only adds how its file is written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

import tinyres
from tinyres import environment, records
from tinyres.checkpoint import load_weights
from tinyres.errors import (
    ArtifactError,
    CheckpointError,
    ProofError,
    TinyresError,
    UsageError,
)
from tinyres.export import artifact, golden
from tinyres.export.artifact import Exported
from tinyres.export.certificate import SCHEMA, Certificate, Level, certificate_path, grade_of, read_certificate
from tinyres.export.evidence import Gathered, gather_evidence
from tinyres.export.limits import LIMITS, Limits
from tinyres.export.onnx import check_file, onnx_from_checkpoint
from tinyres.export.options import DEFAULT_BATCHES
from tinyres.export.proof import Judged, judge_artifact
from tinyres.export.ranges import judge_range, largest_values
from tinyres.files import cache_root, sha256_of, write_bytes
from tinyres.judge import require_same_classes
from tinyres.launch import run_data
from tinyres.progress import Silent
from tinyres.runs import RunConfig, now
from tinyres.runtime.backends import why_unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.checkpoint import Checkpoint
    from tinyres.data.dataset import Dataset
    from tinyres.export.graph import Floats
    from tinyres.export.proof import Batches
    from tinyres.progress import Progress
    from tinyres.runtime.passport import Passport


PROVEN_ON: dict[Floats, str] = {"fp32": "onnxruntime-cpu", "fp16": "onnxruntime-cpu", "bf16": "openvino"}
"""The backend of a CPU that opens a precision; on others `verify` proves it again."""


def export_onnx(
    source: Path,
    target: Path,
    *,
    precision: Floats = "fp32",
    dataset: Dataset | None,
    batches: Batches = DEFAULT_BATCHES,
    proof_images: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress,
) -> Exported:
    """Export the checkpoint `source` to the ONNX file `target` and prove it, on ONNX Runtime's CPU provider if it can.

    `dataset` is the run's own; None leaves accuracy unproven. Errors: ProofError if a level failed, BackendUnavailable
    if it was the backend's (both leave `<target>.rejected/`); CheckpointError, UsageError, StorageError.
    """
    if source.suffix != ".safetensors":
        raise CheckpointError(
            f"{source.name} is no checkpoint",
            hint="valid: a run or its .safetensors",
        )
    backend = PROVEN_ON[precision]
    if missing := why_unavailable(backend):
        raise missing
    checkpoint = load_weights(source)
    if dataset is not None:
        require_same_classes(dataset, checkpoint.spec)
    limits = LIMITS[precision]
    count = limits.images if proof_images is None else proof_images
    if count < 2:
        raise UsageError(f"--proof-images {count}: valid: 2 or more, since one image shows no signal")
    with artifact.staging(target) as candidate:
        progress.log(f"converting {source.name} of run {checkpoint.origin.run} to {target.name}")
        checkpoint.model()  # refuses weights that do not fit their spec
        write_bytes(candidate, onnx_from_checkpoint(checkpoint, precision=precision))
        cache = cache_root(cache_dir) / "reference"
        gathered = gather_evidence(checkpoint, dataset, count=count, cache=cache, progress=progress)
        ranges: tuple[Level, ...] = ()
        if precision == "fp16":
            images = gathered.evidence.images[gathered.evidence.exact_rows]
            ranges = (judge_range(largest_values(onnx_from_checkpoint(checkpoint), images, progress=progress)),)
        certificate = prove(
            candidate,
            checkpoint,
            gathered,
            limits=limits,
            batches=batches,
            backend=backend,
            also=ranges,
            progress=progress,
        )
        exported = artifact.settle(candidate, target, certificate, reproduce=reproduction(target, source))
    if certificate.grade == "numeric":
        progress.warn(
            "accuracy not proven: judged on drawn pictures, since no data of the run was at hand (--data names it)"
        )
    return exported


def proven_onnx(
    source: Path,
    target: Path,
    *,
    precision: Floats = "fp32",
    dataset: Dataset | None,
    batches: Batches | None = None,
    proof_images: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress,
) -> None:
    """Make sure that the ONNX file `target` is there, `source`'s and proven, for `batches` if they are named.

    Errors: those of `export_onnx`.
    """
    try:
        known = read_certificate(target)
        whole = golden.fingerprint(target) == known.golden_sha256
    except (ArtifactError, ProofError, OSError):
        whole = False
    if whole and known.checkpoint_sha256 == sha256_of(source) and batches in (None, known.batches):
        progress.log(f"from {target}, proven ({known.grade})")
        return
    export_onnx(
        source,
        target,
        precision=precision,
        dataset=dataset,
        batches=batches or DEFAULT_BATCHES,
        proof_images=proof_images,
        cache_dir=cache_dir,
        progress=progress,
    )


def prove(
    candidate: Path,
    checkpoint: Checkpoint,
    gathered: Gathered,
    *,
    limits: Limits,
    batches: Batches,
    backend: str | None = None,
    passport: Passport | None = None,
    also: tuple[Level, ...] = (),
    progress: Progress,
) -> Certificate:
    """Hold the file to its promises, judge every level, and write the golden vectors beside it.

    `also` are levels that were judged before.
    """
    levels: tuple[Level, ...] = (_file_level(candidate, checkpoint, passport),)
    judged = Judged((), (), "", "", None, gathered.golden.artifact[:0])
    if levels[0].passed:
        judged = judge_artifact(
            candidate,
            gathered.evidence,
            gathered.golden.pictures,
            gathered.golden.evidence(),
            limits=limits,
            batches=batches,
            backend=backend,
            progress=progress,
        )
    golden_sha256 = ""
    if len(judged.golden_answers) and np.isfinite(judged.golden_answers).all():
        golden.write_golden(candidate, gathered.golden.answered(judged.golden_answers), checkpoint.spec)
        golden_sha256 = golden.fingerprint(candidate)
    levels = (*levels, *also, *judged.levels)
    origin = checkpoint.origin
    return Certificate(
        schema=SCHEMA,
        tinyres=tinyres.__version__,
        created=now(),
        artifact=candidate.name,
        artifact_sha256=sha256_of(candidate),
        artifact_bytes=candidate.stat().st_size,
        golden_sha256=golden_sha256,
        checkpoint_sha256=checkpoint.sha256,
        run=origin.run,
        recipe=origin.recipe,
        trained_on=origin.data_kind,
        backend=judged.backend,
        device=judged.device,
        precision=judged.precision,
        batches=batches,
        grade=grade_of(levels),
        limits=limits,
        levels=levels,
        flips=judged.flips,
        images=gathered.images,
        environment=environment.capture(),
        passport=passport,
    )


def _file_level(candidate: Path, checkpoint: Checkpoint, passport: Passport | None) -> Level:
    """What the file itself promises: valid, self-contained, clean, any batch, and the checkpoint's classes."""
    try:
        metadata = passport.metadata if passport else check_file(candidate.read_bytes())
    except (ProofError, ArtifactError) as exc:
        return Level.failed("file", str(exc))
    if metadata.spec != checkpoint.spec or metadata.checkpoint_sha256 != checkpoint.sha256:
        return Level.failed("file", "its metadata (classes, preprocessing, hash) are not the checkpoint's")
    promised = passport.precision_proof if passport else "valid, self-contained, any batch, nothing but the network"
    return Level.judged("file", True, {}, {}, promised)


def reproduction(target: Path, source: Path) -> str:
    """A script for the folder of a rejected `target`, exported from the checkpoint `source`."""
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
    """Judge a rejected file once more, as its report says it was judged, and print its levels.

    Returns the exit code: that of ProofError if a level fails, of another error of ours if one ends it, else 0.
    """
    try:
        report = records.load(Certificate, certificate_path(candidate), error=ArtifactError)
        checkpoint = load_weights(source)
        home = source.resolve().parent / "config.json"
        dataset = None
        if report.images.data_kind != "generated" and home.is_file():
            dataset = run_data(records.load(RunConfig, home), progress=Silent())
        count, cache = report.images.count, cache_root() / "reference"
        gathered = gather_evidence(checkpoint, dataset, count=count, cache=cache, progress=Silent())
        if gathered.images.sha256 != report.images.sha256:
            print("note: the images of the failed proof are not at hand; judging on others")
        limits, batches = report.limits, report.batches
        certificate = prove(
            candidate,
            checkpoint,
            gathered,
            limits=limits,
            batches=batches,
            backend=report.backend or None,
            passport=report.passport,
            progress=Silent(),
        )
    except TinyresError as exc:
        print(f"error: {exc}")
        return exc.exit_code
    return artifact.print_levels(certificate.levels)
