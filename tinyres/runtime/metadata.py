"""What an artifact says of itself, in the ONNX file's metadata: read without the onnx package, and checked.

It is read before a backend sees the file, so that no backend has to load what it could not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinyres import records
from tinyres.errors import ArtifactError
from tinyres.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KEY = "tinyres"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ArtifactMetadata:
    """Inside every artifact; no time, place or machine, so that equal exports are equal bytes."""

    schema: int
    tinyres: str
    """Version that wrote it."""
    spec: ModelSpec
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    """Of the stored weights."""
    input: Literal["image", "tensor"]
    """`image` takes uint8 (N, S, S, 3) RGB, `tensor` float32 (N, 3, S, S) normalised."""
    checkpoint_sha256: str
    run: str
    recipe: str
    data_kind: str
    """`shapes` marks a toy."""


def read_artifact(path: Path) -> tuple[bytes, ArtifactMetadata]:
    """The bytes of an ONNX artifact that takes pictures, and what it says of itself. Errors: ArtifactError."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror or exc}") from exc
    try:
        properties = dict(_properties(content))
    except (IndexError, ValueError) as exc:
        raise ArtifactError(f"{path} is not an ONNX model: {exc}") from exc
    metadata = read_metadata(properties, place=str(path))
    if metadata.input != "image":
        raise ArtifactError(f"{path} takes float tensors, not pictures", hint="export it with --input image")
    return content, metadata


METADATA_PROPS = 14
"""The field of ModelProto (onnx.proto) that holds pairs of key (1) and value (2)."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def _properties(content: bytes) -> Iterator[tuple[str, str]]:
    """The metadata of a serialized ModelProto. Errors: ValueError or IndexError if it is none."""
    for field, pair in _fields(content):
        if field == METADATA_PROPS:
            entry = dict(_fields(pair))
            yield entry[1].decode() if 1 in entry else "", entry[2].decode() if 2 in entry else ""


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The number and bytes of each field of a protobuf message that has bytes; others are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            _, at = _varint(message, at)
        elif kind == BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("it is cut short")
            yield key >> 3, message[at : at + size]
            at += size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise ValueError("it is no protobuf message")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number in 7-bit groups, and where it ends."""
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("it is no protobuf message")


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
