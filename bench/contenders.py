"""Who takes part: the checkpoint on PyTorch, and every proven artifact of the run on each backend that opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres.bench.results import ProofLevel
from tinyres.errors import ArtifactError, ProofError, require_choice
from tinyres.export.certificate import read_certificate
from tinyres.files import sha256_of
from tinyres.runtime.backends import BACKENDS, backend_for, why_unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyres.export.certificate import Certificate
    from tinyres.runs import Model

SLOW_WAYS = ("compiled", "eager bf16", "channels_last bf16", "compiled bf16")
"""Left out of a quick bench: they take long to compile, or tell little more."""
HOW_TO_EXPORT = {".onnx": "tinyres export {name}", ".engine": "tinyres export {name} --format trt"}


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
    way: str = ""
    """In which the backend runs it, where it has several."""
    levels: tuple[ProofLevel, ...] = ()
    """Of its certificate."""
    refused: bool = False
    """It is absent because its file is not to be believed."""
    error_limit: float | None = None
    """The largest numeric error that its certificate allows, as a share of the signal."""

    @property
    def compiles(self) -> bool:
        """Whether opening it compiles something, which its next process finds done."""
        return self.way.startswith("compiled") or self.backend == "onnxruntime-tensorrt"

    @property
    def name(self) -> str:
        """Unique in a bench."""
        return f"{self.backend} {self.way or self.path.stem}".removesuffix(" none")


def find_contenders(model: Model, backends: Sequence[str] | None, *, all_ways: bool = True) -> list[Contender]:
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
        found += [one for path in matching for one in _contenders(name, path, model, all_ways=all_ways)]
        if not matching:
            how = HOW_TO_EXPORT.get(info.suffix, "").format(name=model.name)
            absent = f"nothing for it: no {info.suffix} file" + (f" ({how})" if how else "")
            found.append(Contender(name, Path(f"none{info.suffix}"), "", "", absent))
    # The checkpoint comes first: it is what the others are compared with.
    return sorted(found, key=lambda contender: contender.proof != "reference")


def _opens(name: str, path: Path) -> bool:
    """Whether the file is that backend's: engines of the two TensorRT libraries end alike."""
    try:
        return path.suffix != ".engine" or backend_for(path) == name
    except ArtifactError:
        return True  # its row says what is wrong with it


def _contenders(name: str, path: Path, model: Model, *, all_ways: bool) -> list[Contender]:
    """A file on a backend, in each of its ways."""
    missing, refused = why_unavailable(name), False
    absent = f"{missing} ({missing.hint})" if missing is not None else ""
    digest = sha256_of(path)
    if path.suffix == ".safetensors":
        quick = {way: "" if all_ways or way not in SLOW_WAYS else "not with --quick" for way in BACKENDS[name].ways}
        return [Contender(name, path, digest, "reference", absent or quick[way], way=way) for way in quick]
    try:
        certificate = read_certificate(path)
    except (ArtifactError, ProofError) as exc:
        return [Contender(name, path, digest, "", absent or f"not proven: {exc}", refused=not absent)]
    if name == "onnxruntime-cpu" and certificate.precision is not None and certificate.precision.storage == "bf16":
        absent = "ONNX Runtime's CPU provider has no bf16 arithmetic"
    if certificate.grade == "unproven":
        absent = absent or f"nothing has run it yet (tinyres verify {path.name}, where its GPU is)"
    elif not absent and model.run is not None and certificate.checkpoint_sha256 != sha256_of(model.run.weights):
        absent, refused = f"exported from an earlier checkpoint (tinyres export {model.name})", True
    limits = {level.name: level.limits.get("error") for level in certificate.levels}
    levels = tuple(ProofLevel(level.name, level.passed, level.detail) for level in certificate.levels)
    return [
        Contender(
            name,
            path,
            digest,
            certificate.grade,
            absent,
            _warning(name, certificate),
            levels=levels,
            refused=refused,
            error_limit=limits.get("numeric"),
        )
    ]


def _warning(backend: str, certificate: Certificate) -> str:
    target = BACKENDS[backend].int8
    if (calibration := certificate.calibration) and (calibration.asked.target == "cpu") != (target == "cpu"):
        return f"its int8 is laid out for {calibration.asked.target}, not for {target} (--target {target})"
    return ""
