"""Golden vectors: drawn pictures with the answers they must get, shipped beside an artifact so that anyone can test it.

They are drawn by the `shapes` renderer and never taken from training or validation data, which may be private and must
not travel. Noise would not do: a network hardly tells one noise from another. Reading and checking needs no PyTorch.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tinyres.arrays import read_arrays
from tinyres.data import shapes
from tinyres.decode import pixels_from_bytes
from tinyres.errors import ArtifactError, ProofError
from tinyres.export.parity import Evidence, largest_difference
from tinyres.files import read_whole, write_bytes, write_text
from tinyres.harmless import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.export.certificate import Certificate
    from tinyres.export.limits import Limits
    from tinyres.spec import ModelSpec

COUNT = 24
IN_JSON = (0, 1, 3, 6)
"""These go into the JSON for other languages, which is read by eye too: one of each size."""
JSON_SCHEMA = 2
OTHER_SIZES = ((96, 96), (80, 128), (40, 52))
"""Height and width of some of the pictures, so that the resize is proven as well; the rest have the model's."""
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class GoldenPictures:
    """Encoded pictures and what they decode to."""

    pngs: tuple[bytes, ...]
    pixels: NDArray[np.uint8]
    """(N, S, S, 3) RGB"""


@dataclass(frozen=True, slots=True)
class GoldenVectors:
    """The pictures with three answers to each: (N, C) logits."""

    pictures: GoldenPictures
    exact: NDArray[np.float64]
    """The checkpoint in float64."""
    checkpoint: NDArray[np.float32]
    """The checkpoint in float32."""
    artifact: NDArray[np.float32]
    """The artifact when it was exported."""

    def answered(self, artifact: NDArray[np.float32]) -> GoldenVectors:
        """The same with the artifact's answers."""
        return replace(self, artifact=artifact)

    def limit(self, limits: Limits) -> float:
        """How far answers may be from the artifact's, RMS as a share of the signal: another machine rounds otherwise.

        Each of the two may differ from the reference by as much.
        """
        return 2 * largest_difference(self.evidence(), self.artifact, limits)

    def evidence(self) -> Evidence:
        """As evidence for the levels of the proof."""
        return Evidence(
            images=self.pictures.pixels,
            labels=None,
            checkpoint=self.checkpoint,
            exact_rows=np.arange(len(self.exact)),
            exact=self.exact,
        )


def draw_pictures(spec: ModelSpec) -> GoldenPictures:
    """Draw the golden pictures for a model: PNG bytes, and the pixels that its preprocessing makes of them."""
    size = spec.preprocess.image_size
    pngs = []
    for index in range(COUNT):
        height, width = (size, size) if index % 3 else OTHER_SIZES[index // 3 % len(OTHER_SIZES)]
        drawn = Image.fromarray(shapes.render("golden", index, max(height, width)))
        left, top = (drawn.width - width) // 2, (drawn.height - height) // 2
        buffer = io.BytesIO()
        drawn.crop((left, top, left + width, top + height)).save(buffer, "PNG")
        pngs.append(buffer.getvalue())
    pixels = np.stack([pixels_from_bytes(png, spec.preprocess) for png in pngs])
    return GoldenPictures(tuple(pngs), pixels)


def golden_path(artifact: Path) -> Path:
    """Where the golden vectors of `artifact` lie."""
    return artifact.with_name(artifact.name + ".golden.npz")


def json_path(artifact: Path) -> Path:
    """Where the few of them lie that are for other languages."""
    return artifact.with_name(artifact.name + ".golden.json")


def copy_golden(artifact: Path, other: Path) -> None:
    """Lay the golden vectors of `artifact` beside `other`, made of it. Errors: ArtifactError, StorageError."""
    for path in (golden_path, json_path):
        try:
            content = path(artifact).read_bytes()
        except OSError as exc:
            raise ArtifactError(f"cannot read {path(artifact)}: {exc.strerror or exc}", hint="export again") from exc
        write_bytes(path(other), content)


def write_golden(artifact: Path, vectors: GoldenVectors, spec: ModelSpec, limits: Limits) -> None:
    """Write `<artifact>.golden.npz`, and a few of them as `<artifact>.golden.json`; docs/embedding.md has both formats.

    Errors: StorageError.
    """
    arrays: dict[str, Any] = {
        "png_bytes": np.frombuffer(b"".join(vectors.pictures.pngs), dtype=np.uint8),
        "png_lengths": np.array([len(png) for png in vectors.pictures.pngs], dtype=np.int64),
        "pixels": vectors.pictures.pixels,
        "exact": vectors.exact,
        "checkpoint": vectors.checkpoint,
        "artifact": vectors.artifact,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(golden_path(artifact), buffer.getvalue())
    write_text(json_path(artifact), json_text(vectors, spec, limits))


def json_text(vectors: GoldenVectors, spec: ModelSpec, limits: Limits) -> str:
    """What the JSON says: a few of the vectors, and how far answers may be from the artifact's."""
    pictures = [
        {
            "png": base64.b64encode(vectors.pictures.pngs[index]).decode(),
            "pixels": base64.b64encode(vectors.pictures.pixels[index].tobytes()).decode(),
            "shape": list(vectors.pictures.pixels.shape[1:]),
            "logits": vectors.exact[index].tolist(),
            "artifact_logits": vectors.artifact[index].astype(float).tolist(),
            "label": spec.class_ids[int(vectors.artifact[index].argmax())],
        }
        for index in IN_JSON
    ]
    known = {"schema": JSON_SCHEMA, "limit": vectors.limit(limits) * vectors.evidence().signal, "pictures": pictures}
    return json.dumps(known, indent=1, allow_nan=False) + "\n"


def proven_json(artifact: Path, certificate: Certificate, spec: ModelSpec) -> str:
    """The JSON made anew from the vectors that `certificate` knows, whatever lies beside `artifact`.

    Errors: ArtifactError; ProofError if the vectors are another's.
    """
    vectors = read_golden(artifact, spec)
    if fingerprint(artifact) != certificate.golden_sha256:
        raise ProofError(f"the golden vectors of {artifact.name} are not those of its certificate", hint="export again")
    return json_text(vectors, spec, certificate.limits)


def read_golden(artifact: Path, spec: ModelSpec) -> GoldenVectors:
    """The golden vectors beside `artifact`. Errors: ArtifactError if they are absent, damaged or another model's."""
    path = golden_path(artifact)
    if not path.is_file():
        raise ArtifactError(f"{artifact.name} has no golden vectors", hint=f"expected {path}; export makes them")
    content = read_whole(path, MAX_BYTES, error=ArtifactError)
    try:
        arrays = read_arrays(content, _KINDS)
    # A damaged npz raises BadZipFile, ValueError, KeyError, EOFError, zlib.error or OSError, by where it is damaged.
    except Exception as exc:
        raise ArtifactError(f"{path.name} is not a file of golden vectors: {shown(str(exc))}") from exc
    if any(array.ndim == 0 for array in arrays.values()):
        raise ArtifactError(f"{path.name} is not a file of golden vectors: it holds a number where rows belong")
    count = len(arrays["pixels"])
    logits, encoded = (count, spec.classes), (len(arrays["png_bytes"]),)
    expected = {"pixels": (count, *spec.input_shape), "png_bytes": encoded, "png_lengths": (count,)}
    expected |= dict.fromkeys(("exact", "checkpoint", "artifact"), logits)
    if not count or any(array.shape != expected[name] or array.dtype != _KINDS[name] for name, array in arrays.items()):
        raise ArtifactError(f"{path.name} does not fit the model of {artifact.name}")
    ends = np.cumsum(arrays["png_lengths"])
    if (arrays["png_lengths"] < 1).any() or ends[-1] != len(arrays["png_bytes"]):
        raise ArtifactError(f"{path.name} does not fit the model of {artifact.name}")
    content = arrays["png_bytes"].tobytes()
    pngs = tuple(content[end - length : end] for end, length in zip(ends, arrays["png_lengths"], strict=True))
    return GoldenVectors(
        pictures=GoldenPictures(pngs, arrays["pixels"]),
        exact=arrays["exact"],
        checkpoint=arrays["checkpoint"],
        artifact=arrays["artifact"],
    )


_KINDS = {
    "png_bytes": np.dtype(np.uint8),
    "png_lengths": np.dtype(np.int64),
    "pixels": np.dtype(np.uint8),
    "exact": np.dtype(np.float64),
    "checkpoint": np.dtype(np.float32),
    "artifact": np.dtype(np.float32),
}


def fingerprint(artifact: Path) -> str:
    """SHA-256 of the golden vectors' file."""
    return hashlib.sha256(golden_path(artifact).read_bytes()).hexdigest()
