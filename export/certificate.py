"""What was proven of an artifact, by what evidence and where: the JSON file beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tinyres import records
from tinyres.environment import Environment
from tinyres.errors import ArtifactError, ProofError, suggest_file
from tinyres.export.limits import Limits
from tinyres.export.options import Int8Options
from tinyres.files import sha256_of
from tinyres.runtime.passport import Passport
from tinyres.runtime.runner import Precision

SCHEMA = 1

Grade = Literal["full", "sampled", "numeric", "unproven", "rejected"]
"""full: every level passed on labelled images of the run's data. sampled: the same, on part of the images, of a
precision that changes some answers. numeric: no such data was at hand, so accuracy is not proven. unproven: built, but
nothing here could run it. rejected: a level failed."""
GRADES: tuple[Grade, ...] = get_args(Grade)
"""The best first."""


@dataclass(frozen=True, slots=True)
class Level:
    """One aspect of the proof."""

    name: str
    passed: bool | None
    """None if it could not be judged, which is never a pass."""
    measured: dict[str, float | None]
    """None where a number is not finite: JSON has no NaN."""
    limits: dict[str, float | None]
    detail: str
    """For people."""

    @classmethod
    def judged(
        cls, name: str, passed: bool | None, measured: dict[str, float], limits: dict[str, float], detail: str
    ) -> Level:
        """A level with its numbers, whatever they are."""
        # numpy's own True and False are neither: `passed is False` must mean what it says.
        return cls(name, None if passed is None else bool(passed), _finite(measured), _finite(limits), detail)

    @classmethod
    def failed(cls, name: str, detail: str) -> Level:
        """A level that had nothing to measure."""
        return cls(name, False, {}, {}, detail)


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Flip:
    """An image whose best class changed."""

    image: int
    """Its place among the images of the proof."""
    label: int | None
    checkpoint: int
    artifact: int
    margin: float | None
    """The checkpoint's logit of its own choice over that of the artifact's; None if it is not finite."""
    tie: bool
    """The margin is within rounding."""


@dataclass(frozen=True, slots=True)
class ProofImages:
    """What the answers were compared on."""

    data_kind: str
    """As in the cache's manifest, or `generated`."""
    data_fingerprint: str
    split: str
    count: int
    exact_count: int
    """Of these with a float64 reference."""
    sha256: str
    """Of the pixels."""
    whole: bool = False
    """They are all of the split."""


@dataclass(frozen=True, slots=True)
class MethodTried:
    """One way to choose the ranges, judged on training pictures that they were not measured on."""

    method: str
    reduced: bool
    """Weights in seven bits."""
    error: float
    """RMS of the difference to the checkpoint's logits, as a share of their signal."""
    agreement: float
    """Share of pictures with the checkpoint's class."""
    accuracy: float
    clipped: float
    """Largest share of a layer's values, over the pictures that were measured."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """What one layer costs and saves in int8."""

    layer: str
    error: float
    """With this layer alone in int8, as a share of the signal."""
    work: float
    """Share of the network's multiplications."""
    kept: bool
    """In float32."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How an int8 artifact came to its ranges and layers."""

    asked: Int8Options
    data_kind: str
    data_fingerprint: str
    images: int
    """Training pictures that the ranges were measured on."""
    sha256: str
    """Of their pixels."""
    held_out: int
    """Other training pictures, which decided."""
    checkpoint_accuracy: float
    """On these."""
    method: str
    reduced: bool
    error: float
    """Of the file on the pictures held out, as a share of the signal."""
    tried: tuple[MethodTried, ...]
    layers: tuple[LayerError, ...]
    refused: int = 0
    """Files with fewer layers in float32 that lost too much in the proof, on the pictures that this one is over too."""

    @property
    def kept(self) -> list[str]:
        """The layers in float32."""
        return [layer.layer for layer in self.layers if layer.kept]

    def __str__(self) -> str:
        ranges = f"{self.method} over {self.images} training pictures" + (", weights in 7 bits" if self.reduced else "")
        return ranges + (f"; {', '.join(self.kept)} in float32" if self.kept else "")


@dataclass(frozen=True, slots=True)
class Certificate:
    """The proof of one artifact."""

    schema: int
    tinyres: str
    created: str
    artifact: str
    """File name."""
    artifact_sha256: str
    artifact_bytes: int
    golden_sha256: str
    """Of the golden vectors beside it; empty if it answered none."""
    checkpoint_sha256: str
    run: str
    recipe: str
    trained_on: str
    """The data's kind; `shapes` marks a toy."""
    backend: str
    """That the proof ran on."""
    device: str
    precision: Precision | None
    """None if the backend did not open."""
    batches: tuple[int, int, int]
    """Least, usual, most; the consistency level tries one between as well."""
    grade: Grade
    limits: Limits
    levels: tuple[Level, ...]
    flips: tuple[Flip, ...]
    images: ProofImages
    environment: Environment
    passport: Passport | None = None
    """Of an engine: what it was built of and for."""
    calibration: Calibration | None = None
    """Of int8."""
    diverges: str = ""
    """Of a file that failed: the first layer whose error is more than rounding adds, if one is."""

    @property
    def failed(self) -> list[Level]:
        """The levels that did not hold."""
        return [level for level in self.levels if level.passed is False]


def grade_of(levels: tuple[Level, ...], limits: Limits, images: ProofImages) -> Grade:
    """The grade that these levels add up to; none at all is a rejection."""
    if not levels or any(level.passed is False for level in levels):
        return "rejected"
    if any(level.name == "backend" and level.passed is None for level in levels):
        return "unproven"
    if not all(level.passed for level in levels):
        return "numeric"
    changes = limits.agreement < 1  # so images that were not judged may be answered otherwise
    return "sampled" if changes and not images.whole else "full"


def certificate_path(artifact: Path) -> Path:
    """Where the certificate of `artifact` lies."""
    return artifact.with_name(artifact.name + ".json")


def read_certificate(artifact: Path, *, unproven: bool = False) -> Certificate:
    """The certificate of an artifact.

    Errors: ArtifactError if there is none; ProofError if it proves another file, or nothing unless `unproven` may be.
    """
    if not artifact.is_file():
        within = sorted(path for path in artifact.rglob("*") if path.suffix in (".onnx", ".engine"))
        holds = f"it holds {', '.join(map(str, within))}" if within else None
        made = "tinyres export makes artifacts"
        raise ArtifactError(f"there is no artifact {artifact}", hint=holds or suggest_file(artifact, otherwise=made))
    path = certificate_path(artifact)
    if not path.is_file():
        raise ArtifactError(f"{artifact.name} has no certificate", hint=f"expected {path}; tinyres export makes both")
    certificate = records.load(Certificate, path, error=ArtifactError)
    least, usual, most = certificate.batches
    if certificate.schema > SCHEMA:
        raise ArtifactError(
            f"{path.name} was written by a newer tinyres ({certificate.tinyres})", hint="pip install -U tinyres"
        )
    if not 1 <= least <= usual <= most or certificate.grade != grade_of(
        certificate.levels, certificate.limits, certificate.images
    ):
        raise ArtifactError(f"{path.name} contradicts itself", hint="export again")
    if certificate.artifact_sha256 != sha256_of(artifact):
        raise ProofError(
            f"the certificate {path.name} belongs to another file: the hashes differ",
            hint="copy both again, or export again",
        )
    if certificate.grade == "rejected" or certificate.failed:
        raise ProofError(f"{artifact.name} failed its proof", hint="export again")
    if certificate.grade == "unproven" and not unproven:
        raise ProofError(
            f"{artifact.name} was built, but no device has run it yet",
            hint=f"tinyres verify {artifact}, on a machine with its GPU",
        )
    return certificate
