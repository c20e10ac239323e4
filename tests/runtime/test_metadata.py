"""Reading an artifact's metadata off its bytes: what the onnx package reads, and nothing from what is no model."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyres.errors import ArtifactError
from tinyres.export.artifact import Exported
from tinyres.runtime.metadata import KEY, _properties, read_artifact


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5), st.text(max_size=50))
def test_metadata_are_those_that_the_onnx_package_wrote(properties: dict[str, str], producer: str) -> None:
    model = onnx.ModelProto(ir_version=8, producer_name=producer, model_version=2**40)
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    model.opset_import.add(domain="", version=18)
    assert dict(_properties(model.SerializeToString())) == properties


def test_an_artifact_is_read_with_its_bytes(exported: Exported) -> None:
    content, metadata = read_artifact(exported.path)
    assert content == exported.path.read_bytes()
    assert (metadata.precision, metadata.run, metadata.spec.classes) == ("fp32", "tiny", 3)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_short_or_changed_is_an_artifact_or_one_clear_error(
    exported: Exported, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(exported.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    said = ""
    try:
        read_artifact(path)
    except ArtifactError as exc:
        said = str(exc)
    assert len(said.splitlines()) <= 1


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 40, b"\x72\x7f", b"\x0b", b"\x80" * 12])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ArtifactError):
        read_artifact(tmp_path / "a.onnx")


def test_a_file_that_takes_tensors_is_refused_with_the_way_out(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    entry.value = entry.value.replace('"input": "image"', '"input": "tensor"')
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match="takes float tensors, not pictures"):
        read_artifact(tmp_path / "a.onnx")
