"""Who takes part: the checkpoint on PyTorch, and every proven artifact of the run on each backend that opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres.errors import ArtifactError, ProofError, require_choice
from tinyres.export.certificate import read_certificate
from tinyres.files import sha256_of
from tinyres.runtime.backends import BACKENDS, backend_for, why_unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyres.runs import Model


@dataclass(frozen=True, slots=True)
class Contender:
    """A file on a backend."""

    backend: str
    path: Path
    sha256: str
    proof: str
    """`reference`, or the certificate's grade."""
    absent: str
    """Why it cannot take part; empty if it can."""
    warning: str = ""
    """What to know of its figures."""

    @property
    def name(self) -> str:
        """Unique in a bench."""
        return self.backend if self.path.suffix == ".safetensors" else f"{self.backend} {self.path.stem}"


def find_contenders(model: Model, backends: Sequence[str] | None) -> list[Contender]:
    """All contenders for `model`, the absent ones with their reason. Errors: UsageError for an unknown backend.

    ArtifactError or ProofError for an artifact that was named and is not proven.
    """
    for name in backends or ():
        require_choice("backend", name, BACKENDS)
    if model.how == "file" and model.path.suffix != ".safetensors":
        read_certificate(model.path)  # what was named must be there and proven; of a run's files each has its row
    files = [model.path]
    if model.run is not None:
        checkpoint = model.run.weights
        exports = sorted(path for path in model.exports.glob("*") if path.is_file())
        files = [checkpoint, *exports] if model.path == checkpoint else [checkpoint, model.path]
    found = []
    for name, info in BACKENDS.items():
        if backends and name not in backends:
            continue
        matching = [path for path in files if path.suffix == info.suffix and path.is_file() and _opens(name, path)]
        found += [_contender(name, path, model) for path in matching]
        if not matching:
            absent = f"nothing exported for it (no {info.suffix} file)"
            found.append(Contender(name, Path(f"none{info.suffix}"), "", "", absent))
    # The checkpoint comes first: it is what the others are compared with.
    return sorted(found, key=lambda contender: contender.proof != "reference")


def _opens(name: str, path: Path) -> bool:
    """Whether the file is that backend's: engines of the two TensorRT libraries end alike."""
    try:
        return path.suffix != ".engine" or backend_for(path) == name
    except ArtifactError:
        return True  # its row says what is wrong with it


def _contender(name: str, path: Path, model: Model) -> Contender:
    missing = why_unavailable(name)
    absent = f"{missing} ({missing.hint})" if missing is not None else ""
    if path.suffix == ".safetensors":
        return Contender(name, path, sha256_of(path), "reference", absent)
    try:
        certificate = read_certificate(path)
    except (ArtifactError, ProofError) as exc:
        return Contender(name, path, sha256_of(path), "", f"not proven: {exc}")
    if name == "onnxruntime-cpu" and certificate.precision is not None and certificate.precision.storage == "bf16":
        absent = "ONNX Runtime's CPU provider has no bf16 arithmetic"
    if model.run is not None and certificate.checkpoint_sha256 != sha256_of(model.run.weights):
        absent = f"exported from an earlier checkpoint (tinyres export {model.name})"
    warning = ""
    target = BACKENDS[name].int8
    if (calibration := certificate.calibration) and (calibration.asked.target == "cpu") != (target == "cpu"):
        warning = f"its int8 is laid out for {calibration.asked.target}, not for {target} (--target {target})"
    return Contender(name, path, sha256_of(path), certificate.grade, absent, warning)
