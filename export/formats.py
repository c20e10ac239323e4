"""What `--format` names: each format's way from a model to its files, with the proofs that it stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinyres.errors import UsageError
from tinyres.judge import data_at_hand

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.data.dataset import Dataset
    from tinyres.export.artifact import Exported
    from tinyres.export.engine import Runtime
    from tinyres.export.graph import Floats
    from tinyres.export.triton import Repository
    from tinyres.progress import Progress
    from tinyres.runs import Model

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
    precision: Floats
    batches: tuple[int, int, int] | None
    """Least, usual, most; None: the default, or those of an artifact that is there."""
    folder: Path | None
    """None: where the model's exports are."""
    proof_images: int | None
    data: str | None
    """Instead of the run's own."""
    cache_dir: Path | None
    engine: EngineRequest


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
    if request.format != "trt" and request.engine != EngineRequest():
        raise UsageError(f"--format {request.format} has no options of engines", hint="they are for --format trt")
    if request.format == "trt":
        return _export_engine(model, artifact, request, progress)
    if request.format == "triton":
        return _export_triton(model, artifact, request, progress)
    if artifact is not None:
        raise UsageError(
            f"{artifact.name} is an {'engine' if artifact.suffix == '.engine' else 'ONNX file'} already",
            hint=f"tinyres verify {artifact} proves it again; --format trt and triton go on from an ONNX file",
        )
    from tinyres.export.options import DEFAULT_BATCHES
    from tinyres.export.pipeline import export_onnx

    return export_onnx(
        model.path,
        (request.folder or model.exports) / f"{request.precision}.onnx",
        precision=request.precision,
        dataset=_dataset(model, request, progress),
        batches=request.batches or DEFAULT_BATCHES,
        proof_images=request.proof_images,
        cache_dir=request.cache_dir,
        progress=progress,
    )


def _export_engine(model: Model, artifact: Path | None, request: Request, progress: Progress) -> Exported:
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
    onnx = artifact or folder / f"{request.precision}.onnx"
    dataset = None
    if artifact is None:
        require_buildable(  # which export_engine asks too, but only after the ONNX file, which takes longer
            destination.library,
            options,
            precision=request.precision,
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
        artifact = folder / f"{request.precision}.onnx"
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
        precision=request.precision,
        dataset=dataset,
        batches=batches,
        proof_images=request.proof_images,
        cache_dir=request.cache_dir,
        progress=progress,
    )
