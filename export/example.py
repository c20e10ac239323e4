"""Programs that use an artifact elsewhere: one in Python beside every file, and folders for other languages.

They run without tinyres (but for Ray's) and prove themselves against the golden vectors: `docs/embedding.md`.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Literal

from tinyres.errors import UsageError
from tinyres.export import golden
from tinyres.export.certificate import certificate_path, read_certificate
from tinyres.export.template import fill_template
from tinyres.files import storage_errors, write_bytes, write_text
from tinyres.runtime.metadata import read_artifact

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.export.limits import Limits

Example = Literal["python", "node", "browser", "cpp", "ray"]
MODEL = "model.onnx"
"""What each folder calls its model."""
EXAMPLES: tuple[Example, ...] = ("python", "node", "browser", "cpp", "ray")


def write_example(artifact: Path, example: Example, *, folder: Path | None = None) -> Path:
    """Write a program for a proven ONNX file: `<artifact>.py`, or a folder with all it needs. Returns where it is.

    The folder lies in `folder`, else beside the artifact. One that is there gets the model and its golden vectors anew;
    programs in it are left as they are, since users change them. Errors: ProofError for a file without its proof;
    UsageError for one that a CPU's ONNX Runtime does not compute as it was proven; ArtifactError, StorageError.
    """
    certificate = read_certificate(artifact)
    if (reason := why_not(artifact)) is not None:
        raise UsageError(f"{artifact.name} has no example: {reason}", hint="name a file in fp32, fp16 or int8 for cpu")
    spec = read_artifact(artifact)[1].spec
    vectors = golden.proven_json(artifact, certificate, spec)
    if example == "python":
        if folder not in (None, artifact.parent):
            raise UsageError(f"the example in Python lies beside {artifact.name}", hint="leave --out out")
        return write_program(artifact, certificate.limits)
    home = (folder or artifact.parent) / example
    if home.exists() and not (home / MODEL).is_file():
        raise UsageError(f"there is a folder {home} that tinyres did not write", hint="--out names another place")
    with storage_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        write_bytes(home / MODEL, artifact.read_bytes())
        write_text(golden.json_path(home / MODEL), vectors)
        for beside in (certificate_path, golden.golden_path):  # so that it can be verified where it goes
            write_bytes(beside(home / MODEL), beside(artifact).read_bytes())
        for file in (resources.files("tinyres.embed") / example).iterdir():
            if file.is_file() and not (home / file.name).exists():
                write_bytes(home / file.name, file.read_bytes())
    return home


def why_not(artifact: Path) -> str | None:
    """What keeps an artifact from being shown in ONNX Runtime on a CPU; None if nothing does."""
    if artifact.suffix != ".onnx":
        return "it is an engine"
    metadata = read_artifact(artifact)[1]
    if metadata.precision == "bf16":
        return "ONNX Runtime has no bf16 arithmetic on a CPU"
    if metadata.target not in (None, "cpu"):
        return f"it is laid out for {metadata.target}"
    return None


def write_program(artifact: Path, limits: Limits) -> Path:
    """Write `<artifact>.py`, which classifies pictures with ONNX Runtime, NumPy and Pillow alone."""
    spec = read_artifact(artifact)[1].spec
    vectors = golden.read_golden(artifact, spec)
    values = {
        "file": artifact.name,
        "size": str(spec.preprocess.image_size),
        "limit": f"{vectors.limit(limits) * vectors.evidence().signal:.2g}",
    }
    program = artifact.with_name(artifact.name + ".py")
    write_text(program, fill_template("python/classify.py.in", values))
    return program
