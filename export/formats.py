"""What `--format` names: each format's way from a model to its files, with the proofs that it stands on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from tinyres.errors import TinyresError, UsageError, missing_extra
from tinyres.export.options import Int8Options
from tinyres.files import sha256_of
from tinyres.run_data import data_at_hand
from tinyres.runtime.metadata import stored_precision

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.data.dataset import Dataset
    from tinyres.export.artifact import Exported
    from tinyres.export.engine import Runtime
    from tinyres.export.example import Example
    from tinyres.export.triton import Repository
    from tinyres.progress import Progress
    from tinyres.runs import Model
    from tinyres.runtime.metadata import Stored, Target

Format = Literal["onnx", "trt", "triton"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What only engines have; as it is unless something is asked."""

    runtime: Runtime = "auto"
    compute_capability: str | None = None
    workspace_mb: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    build_only: bool = False
    """Not to be proven where nothing can run it is what was wished."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of an export."""

    format: Format
    precision: Stored | None
    """None: that of an artifact, else fp32."""
    int8: Int8Options | None
    """None: as is usual."""
    batches: tuple[int, int, int] | None
    """Least, usual, most; None: the default, or those of an artifact that is there."""
    folder: Path | None
    """None: where the model's exports are."""
    proof_images: int | None
    data: str | None
    """Instead of the run's own."""
    cache_dir: Path | None
    engine: EngineRequest
    example: Example | None = None
    """A program to write for the ONNX file."""

    @property
    def made_in(self) -> Stored:
        """The precision of the ONNX file that is made of a checkpoint."""
        return self.precision or "fp32"

    @property
    def calibration(self) -> Int8Options:
        """How int8 is made."""
        return self.int8 or Int8Options(target=usual_target(self.format))

    @property
    def file_name(self) -> str:
        """Of that file."""
        return f"int8-{self.calibration.target}.onnx" if self.precision == "int8" else f"{self.made_in}.onnx"


def usual_target(format_: Format) -> Target:
    """What int8 is laid out for if nothing is said."""
    return "tensorrt" if format_ == "trt" else "cpu"


def export_model(model: Model, request: Request, *, progress: Progress) -> Exported | Repository:
    """Export a checkpoint; or make an engine or Triton repository of an artifact, without checkpoint and PyTorch.

    Errors: ProofError if it does not answer like the checkpoint; BackendUnavailable; UsageError, InputError,
    StorageError.
    """
    artifact = model.path if model.path.suffix in (".onnx", ".engine") else None
    if artifact is not None and (request.data or request.proof_images):
        raise UsageError(
            f"{artifact.name} is proven over the golden vectors beside it",
            hint="--data and --proof-images are for a run or checkpoint",
        )
    if artifact is not None and request.precision not in (None, stored_precision(artifact)):
        raise UsageError(
            f"{artifact.name} is {stored_precision(artifact) or 'no ONNX file'}, and not converted to"
            f" {request.precision}",
            hint="name the run or checkpoint, and --precision makes it anew",
        )
    if artifact is not None and request.int8 is not None:
        raise UsageError(f"{artifact.name} is not calibrated again", hint="name the run or checkpoint")
    target = request.calibration.target
    if request.precision == "int8" and request.format != "onnx" and target != usual_target(request.format):
        raise UsageError(
            f"--format {request.format} takes no int8 made for {target}",
            hint=f"leave --target out: it is {usual_target(request.format)} then",
        )
    if request.format != "trt" and request.engine != EngineRequest():
        raise UsageError(f"--format {request.format} has no options of engines", hint="they are for --format trt")
    if request.format != "onnx" and request.example is not None:
        raise UsageError(f"--format {request.format} has no examples", hint="they are for ONNX files")
    if request.format == "trt":
        return _export_engine(model, artifact, request, progress)
    if request.format == "triton":
        return _export_triton(model, artifact, request, progress)
    if artifact is not None and request.example is not None:
        from tinyres.export.artifact import Exported
        from tinyres.export.certificate import read_certificate
        from tinyres.export.example import write_example

        if request.batches is not None:
            raise UsageError(f"{artifact.name} is proven for its batches already", hint="leave --batch out")
        written = write_example(artifact, request.example, folder=request.folder)
        return Exported(artifact, read_certificate(artifact), written)
    if artifact is not None:
        raise UsageError(
            f"{artifact.name} is an {'engine' if artifact.suffix == '.engine' else 'ONNX file'} already",
            hint=f"tinyres verify {artifact} proves it again; --format trt and triton go on from an ONNX file",
        )
    return _export_onnx(model, request, progress)


def _export_onnx(model: Model, request: Request, progress: Progress) -> Exported:
    onnx = (request.folder or model.exports) / request.file_name
    if request.example is not None and (kept := _proven_already(model, onnx, request)) is not None:
        progress.log(f"from {onnx}, proven ({kept.certificate.grade})")
        return replace(kept, example=_example(kept, request.example))
    _tell_if_unfinished(model, progress)
    dataset = _dataset(model, request, progress)
    kept = _proven_already(model, onnx, request) if dataset is None else None
    if kept is not None and kept.certificate.grade in ("full", "sampled"):
        progress.warn(f"kept {onnx}, proven ({kept.certificate.grade}): without the data a new proof would be weaker")
        return kept
    from tinyres.export.options import DEFAULT_BATCHES
    from tinyres.export.pipeline import export_onnx

    exported = export_onnx(
        model.path,
        onnx,
        precision=request.made_in,
        int8=request.calibration,
        dataset=dataset,
        batches=request.batches or DEFAULT_BATCHES,
        proof_images=request.proof_images,
        cache_dir=request.cache_dir,
        progress=progress,
    )
    return exported if request.example is None else replace(exported, example=_example(exported, request.example))


def _tell_if_unfinished(model: Model, progress: Progress) -> None:
    if model.run is not None and (state := model.run.state().state) in ("stopped", "running"):
        progress.warn(f"the training of {model.name} is {state}: tinyres train --resume {model.name} goes on with it")


def _proven_already(model: Model, target: Path, request: Request) -> Exported | None:
    """The file of this checkpoint that is there already, if nothing else is asked of it; without PyTorch."""
    from tinyres.export.artifact import Exported
    from tinyres.export.certificate import read_certificate

    if (request.batches, request.proof_images, request.data, request.int8) != (None, None, None, None):
        return None
    try:
        certificate = read_certificate(target)
        return Exported(target, certificate) if certificate.checkpoint_sha256 == sha256_of(model.path) else None
    except (TinyresError, OSError):
        return None


def _example(exported: Exported, example: Example) -> Path:
    from tinyres.export.example import write_example

    return write_example(exported.path, example)


def _export_engine(model: Model, artifact: Path | None, request: Request, progress: Progress) -> Exported:
    if find_spec("onnx") is None:  # which `train` brings too, with a PyTorch that an engine of an artifact needs not
        raise missing_extra("building an engine", "onnx", "rtx" if request.engine.runtime == "rtx" else "trt")
    from tinyres.export.engine import choose_destination, export_engine
    from tinyres.export.options import DEFAULT_BATCHES
    from tinyres.export.tensorrt import require_buildable
    from tinyres.runtime.passport import BuildOptions

    if artifact is not None and artifact.suffix != ".onnx":
        raise UsageError(f"{artifact.name} is an engine already", hint="name the ONNX file that it was built of")
    asked = request.engine
    options = BuildOptions(
        request.batches or DEFAULT_BATCHES,
        asked.workspace_mb,
        asked.optimization_level,
        asked.version_compatible,
        asked.hardware_compatible,
    )
    destination = choose_destination(asked.runtime, asked.compute_capability)
    if destination.device is None and asked.compute_capability is None:
        where = f"ahead of time for compute capability {destination.compute_capability}"
        progress.log(f"{destination.absent}: {where}; --compute-capability names another")
    folder = request.folder or (artifact.parent if artifact else model.exports)
    onnx = artifact or folder / request.file_name
    dataset = None
    if artifact is None:
        require_buildable(  # which export_engine asks too, but only after the ONNX file, which takes longer
            destination.library,
            options,
            precision=request.made_in,
            compute_capability=destination.named_capability,
            timing_cache=asked.timing_cache,
        )
        dataset = _dataset(model, request, progress)
        _prove_onnx(model, onnx, None, dataset, request, progress)
    return export_engine(
        onnx,
        folder,
        destination=destination,
        options=options,
        source=None if artifact else model.path,
        dataset=dataset,
        proof_images=request.proof_images,
        timing_cache=asked.timing_cache,
        cache_dir=request.cache_dir,
        progress=progress,
    )


def _export_triton(model: Model, artifact: Path | None, request: Request, progress: Progress) -> Repository:
    from tinyres.export.certificate import read_certificate
    from tinyres.export.triton import export_triton

    folder = request.folder or (artifact.parent if artifact else model.exports)
    if artifact is None:
        artifact = folder / request.file_name
        _prove_onnx(model, artifact, request.batches, _dataset(model, request, progress), request, progress)
    proven = read_certificate(artifact).batches
    if request.batches not in (None, proven):
        raise UsageError(
            f"{artifact.name} is proven for batches {':'.join(map(str, proven))}",
            hint="leave --batch out, or export the file anew with it",
        )
    return export_triton(artifact, folder / "triton", progress=progress)


def _dataset(model: Model, request: Request, progress: Progress) -> Dataset | None:
    return data_at_hand(model, request.data, cache_dir=request.cache_dir, progress=progress)


def _prove_onnx(
    model: Model,
    onnx: Path,
    batches: tuple[int, int, int] | None,
    dataset: Dataset | None,
    request: Request,
    progress: Progress,
) -> None:
    from tinyres.export.pipeline import proven_onnx

    proven_onnx(
        model.path,
        onnx,
        precision=request.made_in,
        int8=request.calibration,
        dataset=dataset,
        batches=batches,
        proof_images=request.proof_images,
        cache_dir=request.cache_dir,
        progress=progress,
    )
