"""What an engine was built of and for: the part of the JSON file beside it that decides whether it may be loaded.

An engine file stays as TensorRT wrote it, so `trtexec --loadEngine` reads it; it is a cache of the ONNX file, bound to
one version of one library on one kind of GPU. What would end in "incompatible device" or in old weights ends here.
"""

from __future__ import annotations

import hashlib
import json
import platform as machine
import re
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tinyres import records
from tinyres.errors import ArtifactError, BackendUnavailable, InputError, ProofError, UsageError
from tinyres.files import sha256_of
from tinyres.harmless import shown
from tinyres.runtime.metadata import ArtifactMetadata
from tinyres.runtime.tensorrt_library import Name

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.runtime.cuda import Device
    from tinyres.runtime.tensorrt_library import Library

UNPROVEN = ".unproven.engine"
"""Ends the name of an engine that no device has run yet."""
FORWARD = {(8, 10), (10, 11)}
"""Majors (built, running) between which version-compatible engines load, beside their own (NVIDIA's support matrix)."""
AMPERE = (8, 0)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What was asked of the builder."""

    batches: tuple[int, int, int]
    """Least, usual, most: the optimization profile."""
    workspace_mb: int | None
    """None leaves it to the library."""
    optimization_level: int | None
    version_compatible: bool
    hardware_compatible: bool


@dataclass(frozen=True, slots=True)
class Passport:
    """An engine's."""

    library: Name
    version: str
    """Of the library, all of it."""
    compute_capability: str
    """Of the GPU, as 8.9."""
    gpu: str
    """Its name; empty if it was built ahead of time, without one."""
    driver: str
    """The CUDA version that the driver knows; empty without one."""
    platform: str
    options: BuildOptions
    onnx_sha256: str
    engine_sha256: str
    precision_proof: str
    """How it is known that the engine computes in the precision asked for."""
    metadata: ArtifactMetadata
    """That of the ONNX file: classes, preprocessing, precision, checkpoint."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", self.compute_capability):
            raise UsageError(f"compute capability {self.compute_capability[:20]!r}; valid: two numbers, as 8.9")
        if not re.fullmatch(r"[0-9]{1,4}(\.[\w.+-]{0,40})?", self.version):
            raise UsageError(f"version {self.version[:20]!r} of {self.library}; valid: numbers, as 10.13.2.6")
        least, usual, most = self.options.batches
        if not 1 <= least <= usual <= most:
            raise UsageError(f"batches {self.options.batches}; valid: three rising numbers")

    @property
    def key(self) -> str:
        """Equal for engines that may stand for each other: all that the build depends on, and nothing it gave."""
        parts = asdict(self)
        del parts["engine_sha256"], parts["precision_proof"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def built_for(self) -> str:
        """For people."""
        gpu = f"{self.gpu}, compute capability" if self.gpu else "compute capability"
        return f"{self.library} {self.version} on {gpu} {self.compute_capability}, {self.platform}"

    @property
    def rebuild(self) -> str:
        """The command that builds it again."""
        words = ["tinyres export", shlex.quote(self.metadata.run), "--format trt --runtime"]
        words += ["trt"] if self.library == "tensorrt" else ["rtx"]
        words += [] if self.metadata.precision == "fp32" else ["--precision", self.metadata.precision]
        words += [] if self.gpu else ["--compute-capability", self.compute_capability]
        return " ".join([*words, "--batch", ":".join(map(str, self.options.batches))])


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The JSON file beside an engine before its proof; the certificate holds the same passport after it."""

    passport: Passport


def here() -> str:
    """This machine's operating system and processor: engines do not cross either."""
    return f"{machine.system()} {machine.machine()}"


def sidecar_path(engine: Path) -> Path:
    """Where the passport of `engine` lies: in its certificate's place."""
    return engine.with_name(engine.name + ".json")


def read_passport(engine: Path) -> Passport:
    """The passport of an engine, whose file must be the one it names. Errors: ArtifactError."""
    if not engine.is_file():
        raise ArtifactError(f"there is no engine {engine}")
    path = sidecar_path(engine)
    if not path.exists():
        raise ArtifactError(
            f"{engine.name} has no passport, so nobody knows what it is",
            hint=f"expected {path.name} beside it; tinyres export --format trt makes both",
        )
    try:
        found = json.dumps(records.load_any(path)["passport"])
    except (InputError, KeyError, TypeError, RecursionError) as exc:
        raise ArtifactError(f"{path.name} holds no passport", hint="tinyres export --format trt makes it") from exc
    passport = records.from_json(Passport, found, source=f"the passport in {path.name}", error=ArtifactError)
    if passport.engine_sha256 != sha256_of(engine):
        raise ArtifactError(
            f"{engine.name} is not the engine of its passport: it was cut short or changed",
            hint=f"{passport.rebuild} builds it again",
        )
    return passport


def require_proven(engine: Path) -> None:
    """Errors: ProofError for an engine whose certificate holds no proof: no device ran it, or it failed."""
    try:
        grade = records.load_any(sidecar_path(engine))["grade"]
    except (InputError, KeyError, TypeError):
        grade = "none"
    if grade not in ("full", "sampled", "numeric"):
        raise ProofError(
            f"{engine.name} is not proven (grade {shown(str(grade)[:40])})",
            hint=f"tinyres verify {engine}, on a machine with its GPU",
        )


def require_fit(passport: Passport, library: Library, device: Device | None) -> None:
    """Errors: BackendUnavailable that says what an engine was built for and what is here, unless it may be loaded.

    Without a device, whether one that is found may be asked at all: library, version and platform.
    """
    options = passport.options
    fits = passport.library == library.name and passport.platform == here() and _version_fits(passport, library)
    on = f"on {here()}"
    if device is not None:
        on = f"on {device.name}, compute capability {device.compute_capability}, {here()}"
        built_for = tuple(map(int, passport.compute_capability.split(".")))
        capability = (device.major, device.minor)
        fits &= capability == built_for or (options.hardware_compatible and min(capability, built_for) >= AMPERE)
    if not fits:
        raise BackendUnavailable(
            f"the engine was built for {passport.built_for}; here is {library.name} {library.version} {on}",
            hint=f"tinyres export {shlex.quote(passport.metadata.run)} --format trt builds one for this machine",
        )


def _version_fits(passport: Passport, library: Library) -> bool:
    """The same version; or for a version-compatible engine a later one, of a major that NVIDIA's matrix names."""
    built, runs = passport.version, library.version
    if built == runs:
        return True
    majors = (int(built.split(".")[0]), int(runs.split(".")[0]))
    known = majors[0] == majors[1] or majors in FORWARD
    return passport.options.version_compatible and known and _older_or_same(built, runs)


def _older_or_same(built: str, runs: str) -> bool:
    parts = [[part for part in version.split(".") if part.isascii() and part.isdigit()] for version in (built, runs)]
    first, second = (tuple(map(int, numbers)) for numbers in parts)
    return first <= second
