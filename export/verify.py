"""Prove an artifact again on this machine, from what lies beside it: no PyTorch, no checkpoint, no data.

The same levels as at export, over the golden vectors; and the answers must be those of the export within the limit that
was recorded, since another CPU rounds otherwise. Accuracy is not judged: drawn pictures say nothing about it.
"""

from __future__ import annotations

import hashlib
import html
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tinyres import environment, records
from tinyres.errors import ArtifactError, BackendUnavailable, ProofError, TinyresError, UsageError
from tinyres.export import golden
from tinyres.export.artifact import levels_html, print_levels, promote
from tinyres.export.certificate import (
    Certificate,
    Level,
    ProofImages,
    certificate_path,
    grade_of,
    read_certificate,
)
from tinyres.export.parity import rms, share
from tinyres.export.proof import judge_artifact
from tinyres.progress import Silent
from tinyres.runs import now
from tinyres.runtime.backends import open_runner
from tinyres.runtime.passport import UNPROVEN, read_passport

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tinyres.export.limits import Limits
    from tinyres.progress import Progress


@dataclass(frozen=True, slots=True)
class Verified:
    """An artifact that was proven again."""

    path: Path
    """Where it lies now: the first proof of an engine gives it its name."""
    certificate: Certificate
    levels: tuple[Level, ...]

    def __repr__(self) -> str:
        passed = ", ".join(level.name for level in self.levels if level.passed)
        return f"Verified({str(self.path)!r}: passed {passed})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{levels_html(self.levels)}"


def verify(artifact: Path, *, backend: str | None = None, progress: Progress) -> Verified:
    """Prove `artifact` again. An engine that no device had run yet gets its name by it.

    Errors: ProofError or BackendUnavailable if a level fails, ProofError for a certificate or golden vectors of another
    file; ArtifactError if there are none.
    """
    if artifact.suffix == ".engine":
        read_passport(artifact)  # says more of a damaged engine than its certificate does
    certificate = read_certificate(artifact, unproven=True)
    levels, proven = prove_from_golden(artifact, certificate, backend=backend, progress=progress)
    for level in levels:
        if not level.passed:
            kind = BackendUnavailable if level.name == "backend" else ProofError
            raise kind(f"{artifact.name} failed the {level.name} level here: {level.detail}")
    if certificate.grade != "unproven":
        return Verified(artifact, certificate, levels)
    named = replace(proven, artifact=artifact.name.removesuffix(UNPROVEN) + ".engine")
    if artifact.with_name(named.artifact).exists():
        raise UsageError(f"it is proven here, but there is a {named.artifact} already", hint="remove one of the two")
    return Verified(promote(artifact, named), named, levels)


def prove_from_golden(
    artifact: Path, certificate: Certificate, *, backend: str | None = None, progress: Progress
) -> tuple[tuple[Level, ...], Certificate]:
    """The levels as judged here, whether or not they passed, and `certificate` as it is with them.

    Errors: as `verify` for what lies beside the file; BackendUnavailable, ArtifactError if it does not open.
    """
    if certificate.passport is not None:
        spec = certificate.passport.metadata.spec
    else:
        with open_runner(artifact, backend=backend) as runner:
            spec = runner.spec
    vectors = golden.read_golden(artifact, spec)
    if golden.fingerprint(artifact) != certificate.golden_sha256:
        raise ProofError(f"the golden vectors of {artifact.name} are not those of its certificate", hint="export again")
    evidence = vectors.evidence()
    judged = judge_artifact(
        artifact,
        evidence,
        vectors.pictures,
        evidence,
        limits=certificate.limits,
        batches=certificate.batches,
        backend=backend,
        recorded=vectors.artifact,
        progress=progress,
    )
    recorded = _recorded(vectors, judged.golden_answers, certificate.limits)
    unjudged = [Level.judged("accuracy", None, {}, {}, "not judged: drawn pictures say nothing about it")]
    limits = certificate.limits
    if limits.agreement < 1:
        reason = "not judged: what it answered at export is the measure here"
        replaced = ("numeric", "decision") if limits.rounded else ("decision",)
        unjudged += [Level.judged(name, None, {}, {}, reason) for name in replaced]
    left_out = {level.name for level in unjudged}
    levels = (*(level for level in judged.levels if level.name not in left_out), recorded)
    all_levels = (*(level for level in certificate.levels if level.name == "file"), *unjudged, *levels)
    count = len(vectors.pictures.pixels)
    pixels = hashlib.sha256(vectors.pictures.pixels.tobytes()).hexdigest()
    images = ProofImages("generated", "", "golden", count, count, pixels)
    proven = replace(
        certificate,
        created=now(),
        backend=judged.backend,
        device=judged.device,
        precision=judged.precision,
        grade=grade_of(all_levels, certificate.limits, images),
        levels=all_levels,
        flips=judged.flips,
        images=images,
        environment=environment.capture(),
    )
    return levels, proven


def prove_rejected(artifact: Path) -> int:
    """Judge a file that was set aside once more and print its levels. Returns the exit code of what was found."""
    try:
        report = records.load(Certificate, certificate_path(artifact), error=ArtifactError)
        levels, _ = prove_from_golden(artifact, report, progress=Silent())
    except TinyresError as exc:
        print(f"error: {exc}")
        return exc.exit_code
    return print_levels(levels)


def _recorded(vectors: golden.GoldenVectors, answers: NDArray[np.float32], limits: Limits) -> Level:
    """The answers are those that the artifact gave when it was exported, but for rounding."""
    if answers.shape != vectors.artifact.shape:
        return Level.failed("recorded", f"{answers.shape} logits for {vectors.artifact.shape}")
    evidence = vectors.evidence()
    error = share(rms(answers - vectors.artifact), evidence.signal)
    limit = vectors.limit(limits)
    detail = f"answers differ by {error:.1e} of the signal from those at export"
    return Level.judged("recorded", error <= limit, {"error": error}, {"error": limit}, detail)
