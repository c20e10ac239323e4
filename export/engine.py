"""From a proven ONNX file to an engine: reuse or build it, then prove it, or say that nothing here can.

The ONNX file is the artifact and an engine a cache of it: its name and passport say what for, and it is built again
whenever anything that it depends on has changed. With the checkpoint the proof is that of every export; without it, as
on a device that has neither PyTorch nor the data, it is over the golden vectors that came with the ONNX file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import tinyres
from tinyres import environment, records
from tinyres.errors import BackendUnavailable, TinyresError, UsageError
from tinyres.export import artifact, golden
from tinyres.export.artifact import Exported
from tinyres.export.certificate import GRADES, Certificate, Level, grade_of, read_certificate
from tinyres.export.onnx import check_file
from tinyres.export.tensorrt import build_engine, inspected_precision, require_buildable
from tinyres.export.verify import prove_from_golden
from tinyres.files import cache_root, sha256_of, write_bytes
from tinyres.runs import now
from tinyres.runtime import tensorrt_library
from tinyres.runtime.cuda import Device, find_device
from tinyres.runtime.passport import UNPROVEN, BuildOptions, Passport, Sidecar, here, read_passport, sidecar_path
from tinyres.runtime.tensorrt import Engine, open_engine

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress
    from tinyres.runtime.tensorrt_library import Library

Runtime = Literal["auto", "trt", "rtx"]
DEFAULT_CAPABILITY = "8.9"
"""Ahead of time, without a GPU that says otherwise: Ada, the most widespread RTX generation."""
RTX_GPUS = ("7.5", "8.6", "8.9", "12.0", "12.1")
"""The compute capabilities in the support matrix of TensorRT for RTX; data centres' GPUs are not among them."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What an engine is built with, and for which GPU."""

    library: Library
    device: Device | None
    """The GPU here, if the engine is for it."""
    compute_capability: str
    absent: str = ""
    """Why the engine cannot be run here, without a device."""

    @property
    def named_capability(self) -> str | None:
        """What the builder is told to build for; TensorRT takes the GPU here and is told nothing."""
        return self.compute_capability if self.library.is_rtx else None

    @property
    def stem(self) -> str:
        """The part of an engine's name that says so."""
        short = "rtx" if self.library.is_rtx else "trt"
        return f"{short}{self.library.version}-sm{self.compute_capability.replace('.', '')}"


def choose_destination(runtime: Runtime, compute_capability: str | None) -> Destination:
    """The library and the GPU to build for; `compute_capability` is that of another GPU than the one here.

    `auto` takes TensorRT where it loads and its GPU is here, else TensorRT for RTX. Errors: BackendUnavailable if the
    library or the GPU it needs is not here; UsageError for TensorRT and another GPU.
    """
    device, absent = _device_here()
    here_alone = device is not None and compute_capability in (None, device.compute_capability)
    library = _load(runtime, absent=absent, here_alone=here_alone)
    if not library.is_rtx:
        if device is None:
            raise BackendUnavailable(
                f"{library.name} builds on the GPU that will run the engine, and {absent}",
                hint="--runtime rtx builds ahead of time, without one",
            )
        if not here_alone:
            raise UsageError(
                f"{library.name} builds for the GPU at hand ({device.compute_capability}) alone",
                hint="--runtime rtx builds ahead of time for others",
            )
        return Destination(library, device, device.compute_capability)
    if device is None:
        return Destination(library, None, compute_capability or DEFAULT_CAPABILITY, absent)
    wanted = compute_capability or (device.compute_capability if device.compute_capability in RTX_GPUS else None)
    if wanted == device.compute_capability:
        return Destination(library, device, wanted)
    absent = f"the GPU here has compute capability {device.compute_capability}"
    return Destination(library, None, wanted or DEFAULT_CAPABILITY, absent)


def _device_here() -> tuple[Device | None, str]:
    """The GPU, or why there is none to use."""
    try:
        return find_device(), ""
    except BackendUnavailable as exc:
        return None, str(exc)


def _load(runtime: Runtime, *, absent: str, here_alone: bool) -> Library:
    """The library that `runtime` means here."""
    if runtime != "auto":
        return tensorrt_library.load("tensorrt" if runtime == "trt" else "tensorrt-rtx")
    known = tensorrt_library.installed()
    if here_alone and "tensorrt" in known:
        try:
            return tensorrt_library.load("tensorrt")
        except BackendUnavailable:  # installed without its libraries, say
            if "tensorrt-rtx" not in known:
                raise
    if "tensorrt-rtx" not in known:
        without = f"tensorrt builds where the engine runs, and {absent}" if "tensorrt" in known else ""
        raise BackendUnavailable(
            without or "neither tensorrt nor tensorrt-rtx is installed here",
            hint="pip install 'tinyres[rtx]' builds without a GPU; 'tinyres[trt]' needs one",
        )
    return tensorrt_library.load("tensorrt-rtx")


def export_engine(
    onnx: Path,
    folder: Path,
    *,
    destination: Destination,
    options: BuildOptions,
    source: Path | None = None,
    dataset: Dataset | None = None,
    proof_images: int | None = None,
    timing_cache: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress,
) -> Exported:
    """Build an engine from the proven file `onnx` into `folder`, and prove it.

    `source` is the checkpoint that `onnx` was exported from; None proves over the golden vectors alone, without
    PyTorch. Without a device to run it, the engine is published under a name ending in `.unproven.engine`, with a
    certificate that says so. Errors: ProofError, BackendUnavailable (both may leave `<name>.rejected/`); UsageError,
    ArtifactError, StorageError.
    """
    parent = read_certificate(onnx)
    content = onnx.read_bytes()
    metadata = check_file(content)
    library, device = destination.library, destination.device
    capability = destination.named_capability
    require_buildable(
        library,
        options,
        precision=metadata.precision,
        compute_capability=capability,
        timing_cache=timing_cache,
    )
    passport = Passport(
        library=library.name,
        version=library.version,
        compute_capability=destination.compute_capability,
        gpu=device.name if device else "",
        driver=device.driver if device else "",
        platform=here(),
        options=options,
        onnx_sha256=parent.artifact_sha256,
        engine_sha256="",
        precision_proof="",
        metadata=metadata,
    )
    target = folder / f"{onnx.stem}-{destination.stem}{'.engine' if device else UNPROVEN}"
    count = parent.images.count if proof_images is None else proof_images
    if (kept := _reusable(target, passport, parent, count if source else None)) is not None:
        progress.log(f"reused {target.name}: built of the same file, for the same")
        return kept
    if capability is not None and capability not in RTX_GPUS:
        progress.warn(f"compute capability {capability} is not in the support matrix of TensorRT for RTX")
    with artifact.staging(target) as candidate:
        golden.copy_golden(onnx, candidate)
        progress.log(f"building {target.name} with {library.name} {library.version}" + _replacing(target, passport))
        built = build_engine(
            content, library, options, compute_capability=capability, timing_cache=timing_cache, progress=progress
        )
        write_bytes(candidate, built.content)
        passport = replace(passport, engine_sha256=sha256_of(candidate), precision_proof=built.precision_proof)
        records.save(sidecar_path(candidate), Sidecar(passport))
        progress.log(f"built {len(built.content):,} bytes")
        file = Level.judged("file", True, {}, {}, built.precision_proof)
        if device is not None and not library.is_rtx:  # RTX compiles its kernels later, so its plan shows none
            file = _inspect(candidate, passport, built.int8_layers)
            passport = replace(passport, precision_proof=file.detail)
        certificate = _unproven(candidate, parent, passport, file, destination.absent)
        reproduce = _reproduction(target)
        if device is not None and file.passed and source is None:
            _, certificate = prove_from_golden(candidate, certificate, progress=progress)
        elif device is not None and file.passed and source is not None:
            from tinyres.checkpoint import load_weights
            from tinyres.export.evidence import gather_evidence
            from tinyres.export.pipeline import prove, reproduction

            checkpoint = load_weights(source)
            cache = cache_root(cache_dir) / "reference"
            gathered = gather_evidence(checkpoint, dataset, count=count, cache=cache, progress=progress)
            certificate = prove(
                candidate,
                checkpoint,
                gathered,
                limits=parent.limits,
                batches=options.batches,
                passport=passport,
                calibration=parent.calibration,
                progress=progress,
            )
            reproduce = reproduction(target, source)
        return artifact.settle(candidate, target, certificate, reproduce=reproduce)


def _reusable(target: Path, wanted: Passport, parent: Certificate, count: int | None) -> Exported | None:
    """An engine that is there already, is what was asked for, and is proven as well as it would be now.

    `count` images would be judged; None for the golden vectors.
    """
    try:
        certificate = read_certificate(target, unproven=True)
        same = (
            read_passport(target).key == wanted.key
            and certificate.tinyres == tinyres.__version__
            and certificate.limits == parent.limits
            and golden.fingerprint(target) == certificate.golden_sha256
        )
    except (TinyresError, OSError):
        return None
    if count is not None and certificate.grade != "unproven":
        weaker = certificate.images.count < count or GRADES.index(certificate.grade) > GRADES.index(parent.grade)
        same = same and not weaker
    return Exported(target, certificate) if same else None


def _replacing(target: Path, wanted: Passport) -> str:
    """What an engine that is there differs in from the one that takes its place, for the log."""
    try:
        found = read_passport(target)
    except TinyresError:
        return ""
    labels = {"onnx_sha256": "ONNX file", "gpu": "GPU", "driver": "driver", "options": "options"}
    other = [label for name, label in labels.items() if getattr(found, name) != getattr(wanted, name)]
    return f", in place of one with other {' and '.join(other)}" if other else ""


def _inspect(candidate: Path, passport: Passport, int8_layers: int) -> Level:
    """Whether the engine's own layers show the precision of the file, `int8_layers` of them int8."""
    try:
        engine = open_engine(candidate, Engine)
        try:
            shown = inspected_precision(engine.information(), passport.metadata.precision, int8_layers)
        finally:
            engine.close()
    except TinyresError as exc:
        return Level.failed("backend" if isinstance(exc, BackendUnavailable) else "file", str(exc))
    return Level.judged("file", True, {}, {}, f"{passport.precision_proof}; {shown}")


def _unproven(candidate: Path, parent: Certificate, passport: Passport, file: Level, absent: str) -> Certificate:
    """A certificate that proves the file alone; the golden vectors are those of the ONNX file it was built of."""
    reason = f"not run: {absent}" if absent else "not judged"
    judged = ("numeric", "decision", "accuracy", "consistency", "entry", "backend")
    levels = (file, *(Level.judged(name, None, {}, {}, reason) for name in judged if name != file.name))
    return replace(
        parent,
        tinyres=tinyres.__version__,
        created=now(),
        artifact=candidate.name,
        artifact_sha256=passport.engine_sha256,
        artifact_bytes=candidate.stat().st_size,
        golden_sha256=golden.fingerprint(candidate),
        backend=passport.library,
        device="",
        precision=None,
        batches=passport.options.batches,
        grade=grade_of(levels, parent.limits, parent.images),
        levels=levels,
        flips=(),
        environment=environment.capture(),
        passport=passport,
    )


def _reproduction(target: Path) -> str:
    return f'''"""Prove {target.name} again. Exits with 3 as long as it fails; needs the package installed."""

import sys
from pathlib import Path

from tinyres.export.verify import prove_rejected

sys.exit(prove_rejected(Path(__file__).resolve().parent / {target.name!r}))
'''
