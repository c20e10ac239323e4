"""What an artifact says of itself, in the ONNX file's metadata: read without the onnx package, and checked.

It is read before a backend sees the file, so that no backend has to load what it could not run.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinyres import records
from tinyres.errors import ArtifactError
from tinyres.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Stored = Literal["fp32", "fp16", "bf16", "int8"]
Target = Literal["cpu", "cuda", "tensorrt"]
"""What an int8 file is laid out for: backends differ in what they fuse."""
KEY = "tinyres"
SCHEMA = 1


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


def read_artifact(path: Path) -> tuple[bytes, ArtifactMetadata]:
    """The bytes of an ONNX artifact that takes pictures, and what it says of itself. Errors: ArtifactError."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror or exc}") from exc
    metadata = metadata_of(content, place=str(path))
    if metadata.input != "image":
        raise ArtifactError(f"{path} takes float tensors, not pictures", hint="export it with --input image")
    return content, metadata


def metadata_of(content: bytes, *, place: str = "the file") -> ArtifactMetadata:
    """What the bytes of an ONNX file say of it; errors call it `place`. Errors: ArtifactError."""
    try:
        properties = dict(_properties(content))
    except (IndexError, ValueError) as exc:
        raise ArtifactError(f"{place} is not an ONNX model: {exc}") from exc
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
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def _properties(content: bytes | mmap.mmap) -> Iterator[tuple[str, str]]:
    """The metadata of a serialized ModelProto. Errors: ValueError or IndexError if it is none."""
    for _, pair in _fields(content, {METADATA_PROPS}):
        entry = dict(_fields(pair, {1, 2}))
        yield entry.get(1, b"").decode(), entry.get(2, b"").decode()


def _fields(message: bytes | mmap.mmap, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """The number and bytes of each wanted field of a protobuf message; the weights, say, are passed over uncopied."""
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
            if key >> 3 in wanted:
                yield key >> 3, message[at : at + size]
            at += size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise ValueError("it is no protobuf message")


def _varint(message: bytes | mmap.mmap, at: int) -> tuple[int, int]:
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
