"""What an artifact says of itself, in the ONNX file's metadata: read without the onnx package, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tinyres import records
from tinyres.errors import ArtifactError
from tinyres.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


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
