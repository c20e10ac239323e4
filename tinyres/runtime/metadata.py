"""What an artifact says of itself, in the ONNX file's metadata: read without the onnx package, and checked.

It is read before a backend sees the file, so that no backend has to load what it could not run.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinyres import records
from tinyres.errors import ArtifactError
from tinyres.files import read_whole
from tinyres.harmless import require_shown
from tinyres.runtime.contained import require_contained
from tinyres.runtime.protobuf import fields
from tinyres.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tinyres.runtime.protobuf import Message

Stored = Literal["fp32", "fp16", "bf16", "int8"]
Target = Literal["cpu", "cuda", "tensorrt"]
"""What an int8 file is laid out for: backends differ in what they fuse."""
KEY = "tinyres"
SCHEMA = 1
MAX_BYTES = 2**31 - 1
"""No serialized protobuf message is longer."""


@dataclass(frozen=True, slots=True)
class ArtifactMetadata:
    """Inside every artifact; no time, place or machine, so that equal exports are equal bytes."""

    schema: int
    tinyres: str
    """Version that wrote it."""
    spec: ModelSpec
    precision: Stored
    """Of the stored weights."""
    input: Literal["image", "tensor"]
    """`image` takes uint8 (N, S, S, 3) RGB, `tensor` float32 (N, 3, S, S) normalised."""
    checkpoint_sha256: str
    run: str
    recipe: str
    data_kind: str
    """`shapes` marks a toy."""
    target: Target | None = None
    """Of int8."""

    def __post_init__(self) -> None:
        require_shown(self.run, self.recipe, self.data_kind, self.tinyres)


def read_artifact(path: Path) -> tuple[bytes, ArtifactMetadata]:
    """The bytes of an ONNX artifact that takes pictures, and what it says of itself. Errors: ArtifactError."""
    content = read_whole(path, MAX_BYTES, error=ArtifactError)
    metadata = metadata_of(content, place=str(path))
    require_contained(content, metadata.spec, place=str(path))
    if metadata.input != "image":
        raise ArtifactError(f"{path} takes float tensors, not pictures", hint="export it with --input image")
    return content, metadata


def metadata_of(content: bytes, *, place: str = "the file") -> ArtifactMetadata:
    """What the bytes of an ONNX file say of it; errors call it `place`. Errors: ArtifactError."""
    try:
        properties = dict(_properties(content))
    except (IndexError, ValueError) as exc:
        hint = "tinyres export makes artifacts"
        raise ArtifactError(f"{place} is not an ONNX model: {exc}", hint=hint) from exc
    return read_metadata(properties, place=place)


def stored_precision(path: Path) -> Stored | None:
    """That of an ONNX artifact, read off a few of its bytes; None for a file that is none."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return read_metadata(dict(_properties(content)), place=str(path)).precision
    except (OSError, ValueError, IndexError, ArtifactError):
        return None


METADATA_PROPS = 14
"""The field of ModelProto (onnx.proto) that holds pairs of key (1) and value (2)."""


def _properties(content: Message) -> Iterator[tuple[str, str]]:
    """The metadata of a serialized ModelProto. Errors: ValueError or IndexError if it is none."""
    for _, pair in fields(content, {METADATA_PROPS}):
        entry = {number: bytes(text).decode() for number, text in fields(pair, {1, 2})}
        yield entry.get(1, ""), entry.get(2, "")


def read_metadata(properties: Mapping[str, str], *, place: str) -> ArtifactMetadata:
    """Parse the metadata properties of an ONNX file. Errors: ArtifactError for a foreign or newer file."""
    if KEY not in properties:
        raise ArtifactError(
            f"{place} carries no tinyres metadata: it was not exported by tinyres",
            hint="tinyres export makes artifacts",
        )
    place_of = f"the metadata of {place}"
    metadata = records.from_json(ArtifactMetadata, properties[KEY], source=place_of, error=ArtifactError)
    if metadata.schema > SCHEMA:
        raise ArtifactError(f"{place} was made by a newer tinyres ({metadata.tinyres})", hint="pip install -U tinyres")
    return metadata
