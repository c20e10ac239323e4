"""Prove an artifact again on this machine, from what lies beside it: no PyTorch, no checkpoint, no data.

The same levels as at export, over the golden vectors; and the answers must be those of the export within the limit that
was recorded, since another CPU rounds otherwise. Accuracy is not judged: drawn pictures say nothing about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres.errors import BackendUnavailable, ProofError
from tinyres.export import golden
from tinyres.export.certificate import Certificate, Level, read_certificate
from tinyres.export.parity import rms, share
from tinyres.export.proof import judge_artifact
from tinyres.runtime.backends import open_runner

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tinyres.export.limits import Limits
    from tinyres.progress import Progress


@dataclass(frozen=True, slots=True)
class Verified:
    """An artifact that was proven again."""

    certificate: Certificate
    levels: tuple[Level, ...]


def verify(artifact: Path, *, backend: str | None = None, progress: Progress) -> Verified:
    """Prove `artifact` again.

    Errors: ProofError or BackendUnavailable if a level fails, ProofError for a certificate or golden vectors of another
    file; ArtifactError if there are none.
    """
    certificate = read_certificate(artifact)
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
        progress=progress,
    )
    recorded = _recorded(vectors, judged.golden_answers, certificate.limits)
    levels = (*(level for level in judged.levels if level.name != "accuracy"), recorded)
    for level in levels:
        if not level.passed:
            kind = BackendUnavailable if level.name == "backend" else ProofError
            raise kind(f"{artifact.name} failed the {level.name} level here: {level.detail}")
    return Verified(certificate, levels)


def _recorded(vectors: golden.GoldenVectors, answers: NDArray[np.float32], limits: Limits) -> Level:
    """The answers are those that the artifact gave when it was exported, but for rounding."""
    if answers.shape != vectors.artifact.shape:
        return Level.failed("recorded", f"{answers.shape} logits for {vectors.artifact.shape}")
    evidence = vectors.evidence()
    error = share(rms(answers - vectors.artifact), evidence.signal)
    limit = 2 * limits.largest_error(evidence.floor)  # each of the two lies within the numeric limit of the reference
    detail = f"answers differ by {error:.1e} of the signal from those at export"
    return Level.judged("recorded", error <= limit, {"error": error}, {"error": limit}, detail)
