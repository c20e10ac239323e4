"""From a checkpoint to a published artifact: convert, gather evidence, prove, then publish or set aside.

Every format goes this way; a conversion only adds how its file is written.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

import tinyres
from tinyres import environment, records
from tinyres.checkpoint import load_weights
from tinyres.errors import (
    ArtifactError,
    CheckpointError,
    DataError,
    ProofError,
    TinyresError,
    UsageError,
)
from tinyres.export import artifact, golden
from tinyres.export.artifact import Exported
from tinyres.export.certificate import SCHEMA, Certificate, Level, certificate_path, grade_of, read_certificate
from tinyres.export.diverge import first_diverging
from tinyres.export.evidence import Gathered, gather_evidence
from tinyres.export.example import why_not, write_program
from tinyres.export.int8 import Pictures, calibrated, choose_pictures
from tinyres.export.limits import INT8_HEADROOM, Limits
from tinyres.export.onnx import check_file, onnx_from_checkpoint
from tinyres.export.options import DEFAULT_BATCHES, Int8Options
from tinyres.export.precisions import PRECISIONS
from tinyres.export.proof import Judged, judge_artifact
from tinyres.export.quantize import quantized_layers
from tinyres.export.ranges import clipped_counts, judge_clipping, judge_range, largest_values
from tinyres.files import cache_root, sha256_of, write_bytes
from tinyres.progress import Silent
from tinyres.run_data import require_same_classes, run_data
from tinyres.runs import RunConfig, now
from tinyres.runtime.backends import why_unavailable
from tinyres.runtime.metadata import metadata_of
from tinyres.runtime.onnxruntime_cpu import count_int8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tinyres.checkpoint import Checkpoint
    from tinyres.data.dataset import Dataset
    from tinyres.export.certificate import Calibration
    from tinyres.export.proof import Batches
    from tinyres.progress import Progress
    from tinyres.runtime.metadata import Stored
    from tinyres.runtime.passport import Passport

INT8_DEFAULT = Int8Options()
GIVEN_BACK = {"decision", "accuracy"}
"""What more layers in float32 may mend."""


def export_onnx(
    source: Path,
    target: Path,
    *,
    precision: Stored = "fp32",
    int8: Int8Options = INT8_DEFAULT,
    dataset: Dataset | None,
    batches: Batches = DEFAULT_BATCHES,
    proof_images: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress,
) -> Exported:
    """Export the checkpoint `source` to the ONNX file `target` and prove it, on ONNX Runtime's CPU provider if it can.

    `dataset` is the run's own; None leaves accuracy unproven, int8 impossible. Errors: ProofError if a level failed,
    BackendUnavailable if it was the backend's (both leave `<target>.rejected/`); ProofError if no int8 file keeps the
    largest drop that was asked for; CheckpointError, DataError, UsageError, StorageError.
    """
    if source.suffix != ".safetensors":
        raise CheckpointError(
            f"{source.name} is no checkpoint",
            hint="valid: a run or its .safetensors",
        )
    backend = PRECISIONS[precision].proven_on
    if missing := why_unavailable(backend):
        raise missing
    checkpoint = load_weights(source)
    if dataset is not None:
        require_same_classes(dataset, checkpoint.spec)
    limits = PRECISIONS[precision].limits
    if precision == "int8" and int8.most_drop is not None:
        limits = replace(limits, accuracy_drop=int8.most_drop)
    if dataset is None:
        limits = limits.on_drawn()
    pictures = _pictures(checkpoint, dataset, int8) if precision == "int8" else None
    count = limits.images if proof_images is None else proof_images
    if count < 2:
        raise UsageError(f"--proof-images {count}: valid: 2 or more, since one image shows no signal")
    with artifact.staging(target) as candidate:
        progress.log(f"converting {source.name} of run {checkpoint.origin.run} to {target.name}")
        checkpoint.model()  # refuses weights that do not fit their spec
        cache = cache_root(cache_dir) / "reference"
        gathered = gather_evidence(checkpoint, dataset, count=count, cache=cache, progress=progress)
        for refused, (content, calibration) in enumerate(_conversions(checkpoint, precision, pictures, int8, progress)):
            write_bytes(candidate, content)
            if calibration is not None:
                limits = replace(limits, numeric_share=INT8_HEADROOM * calibration.error)
            certificate = prove(
                candidate,
                checkpoint,
                gathered,
                limits=limits,
                batches=batches,
                backend=backend,
                calibration=calibration and replace(calibration, refused=refused),
                progress=progress,
            )
            if certificate.grade != "rejected" or not {level.name for level in certificate.failed} <= GIVEN_BACK:
                break
            if calibration is not None and int8.most_drop is not None:
                progress.log(f"{certificate.failed[0].detail}: not within the limit")
        if certificate.grade != "rejected" and why_not(candidate) is None:
            write_program(candidate, limits)
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
    precision: Stored = "fp32",
    int8: Int8Options = INT8_DEFAULT,
    dataset: Dataset | None,
    batches: Batches | None = None,
    proof_images: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress,
) -> None:
    """Make sure that the ONNX file `target` is there, `source`'s and proven, for `batches` if they are named.

    Errors: those of `export_onnx`.
    """
    known = _reusable(source, target, int8 if precision == "int8" else None, dataset, proof_images)
    if known is not None and batches in (None, known.batches):
        progress.log(f"from {target}, proven ({known.grade})")
        return
    export_onnx(
        source,
        target,
        precision=precision,
        int8=int8,
        dataset=dataset,
        batches=batches or DEFAULT_BATCHES,
        proof_images=proof_images,
        cache_dir=cache_dir,
        progress=progress,
    )


def _reusable(
    source: Path, target: Path, int8: Int8Options | None, dataset: Dataset | None, proof_images: int | None
) -> Certificate | None:
    """The certificate of a file that is there already, is what was asked for, and proven as well as it would be now."""
    try:
        known = read_certificate(target)
        whole = golden.fingerprint(target) == known.golden_sha256 and known.checkpoint_sha256 == sha256_of(source)
    except (ArtifactError, ProofError, OSError):
        return None
    if proof_images is not None and known.images.count < proof_images and not known.images.whole:
        return None
    if int8 is not None:
        made = known.calibration
        whole = whole and made is not None and made.asked == int8 and known.tinyres == tinyres.__version__
        if made is not None and dataset is not None:
            whole = whole and made.data_fingerprint == dataset.manifest.fingerprint
    return known if whole else None


def prove(
    candidate: Path,
    checkpoint: Checkpoint,
    gathered: Gathered,
    *,
    limits: Limits,
    batches: Batches,
    backend: str | None = None,
    passport: Passport | None = None,
    calibration: Calibration | None = None,
    progress: Progress,
) -> Certificate:
    """Hold the file to its promises, judge every level, and write the golden vectors beside it."""
    levels: tuple[Level, ...] = (_file_level(candidate, checkpoint, passport),)
    judged = Judged((), (), "", "", None, gathered.golden.artifact[:0])
    if levels[0].passed:
        if passport is None:
            levels += _range_levels(candidate.read_bytes(), checkpoint, gathered, progress)
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
        golden.write_golden(candidate, gathered.golden.answered(judged.golden_answers), checkpoint.spec, limits)
        golden_sha256 = golden.fingerprint(candidate)
    levels = (*levels, *judged.levels)
    grade = grade_of(levels, limits, gathered.images)
    diverges = ""
    if grade == "rejected" and levels[0].passed and passport is None:
        diverges = _first_diverging(candidate.read_bytes(), checkpoint, gathered)
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
        grade=grade,
        limits=limits,
        levels=levels,
        flips=judged.flips,
        images=gathered.images,
        environment=environment.capture(),
        passport=passport,
        calibration=calibration,
        diverges=diverges,
    )


def _first_diverging(content: bytes, checkpoint: Checkpoint, gathered: Gathered) -> str:
    try:
        return first_diverging(content, checkpoint, gathered.evidence.images, metadata_of(content).precision)
    except Exception:  # noqa: BLE001 - what cannot be run here layer by layer costs the hint, not the report
        return ""


def _conversions(
    checkpoint: Checkpoint, precision: Stored, pictures: Pictures | None, int8: Int8Options, progress: Progress
) -> Iterator[tuple[bytes, Calibration | None]]:
    """The files to prove, the next one where the accuracy of one is not enough."""
    if precision != "int8":
        yield onnx_from_checkpoint(checkpoint, precision=precision), None
    elif pictures is not None:
        yield from calibrated(checkpoint, pictures, int8, progress=progress)


def _pictures(checkpoint: Checkpoint, dataset: Dataset | None, int8: Int8Options) -> Pictures:
    """What int8 is calibrated on. Errors: DataError if there are none, or they set no ranges."""
    if dataset is None:
        raise DataError(
            "int8 takes its ranges from training pictures, and the run's data is not at hand",
            hint="--data names it; --precision fp16 and bf16 need none",
        )
    return choose_pictures(dataset, checkpoint, int8.images)


def _range_levels(content: bytes, checkpoint: Checkpoint, gathered: Gathered, progress: Progress) -> tuple[Level, ...]:
    """Whether an ONNX file's numbers hold what its layers reach, where answers here need not show it."""
    precision = metadata_of(content).precision
    images = gathered.evidence.images[gathered.evidence.exact_rows]
    if precision == "fp16":
        return (judge_range(largest_values(onnx_from_checkpoint(checkpoint), images, progress=progress)),)
    if precision == "int8":
        floats = onnx_from_checkpoint(checkpoint)
        return (judge_clipping(clipped_counts(content, floats, images, progress=progress)),)
    return ()


def _file_level(candidate: Path, checkpoint: Checkpoint, passport: Passport | None) -> Level:
    """What the file itself promises: valid, self-contained, clean, any batch, and the checkpoint's classes."""
    try:
        metadata = passport.metadata if passport else check_file(candidate.read_bytes())
    except (ProofError, ArtifactError) as exc:
        return Level.failed("file", str(exc))
    if metadata.spec != checkpoint.spec or metadata.checkpoint_sha256 != checkpoint.sha256:
        return Level.failed("file", "its metadata (classes, preprocessing, hash) are not the checkpoint's")
    promised = passport.precision_proof if passport else "valid, self-contained, any batch, nothing but the network"
    if passport is None and metadata.precision == "int8":
        content = candidate.read_bytes()
        layers = len(quantized_layers(onnx.load_model_from_string(content)))
        promised += f"; {layers} layers in int8"
        if metadata.target == "cpu" and (computed := count_int8(content)) != layers:
            return Level.failed("file", f"ONNX Runtime computes {computed} of its {layers} int8 layers in int8")
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
    if certificate.diverges:
        print(certificate.diverges)
    return artifact.print_levels(certificate.levels)
