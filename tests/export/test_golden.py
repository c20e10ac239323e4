from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tinyres.errors import ArtifactError
from tinyres.export import golden
from tinyres.export.artifact import Exported
from tinyres.export.limits import FP32
from tinyres.spec import ModelSpec, Preprocess


@pytest.fixture
def copied(exported: Exported, tmp_path: Path) -> Path:
    """The artifact with all that lies beside it, to be broken."""
    for path in exported.path.parent.glob("fp32.onnx*"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / "fp32.onnx"


def spec_of(exported: Exported) -> ModelSpec:
    from tinyres.runtime import open_runner

    with open_runner(exported.path) as runner:
        return runner.spec


def test_pictures_are_drawn_of_the_models_size_and_others() -> None:
    names = ("a", "b")
    pictures = golden.draw_pictures(ModelSpec(class_names=names, class_ids=names, preprocess=Preprocess(image_size=64)))
    sizes = [Image.open(io.BytesIO(png)).size for png in pictures.pngs]
    assert sizes.count((64, 64)) == 16
    assert {(96, 96), (128, 80), (52, 40)} <= set(sizes)
    for png, pixels in zip(pictures.pngs, pictures.pixels, strict=True):
        image = Image.open(io.BytesIO(png))
        if image.size == (64, 64):
            assert (np.asarray(image) == pixels).all()
    assert len({pixels.tobytes() for pixels in pictures.pixels}) == golden.COUNT


def test_the_json_alone_lets_another_program_test_itself(exported: Exported) -> None:
    known = json.loads(exported.path.with_name("fp32.onnx.golden.json").read_text())
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    assert known["schema"] == golden.JSON_SCHEMA
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture["png"]))).size for picture in known["pictures"]]
    assert sizes == [(96, 96), (16, 16), (128, 80), (52, 40)]
    differences = []
    for picture in known["pictures"]:
        pixels = np.frombuffer(base64.b64decode(picture["pixels"]), dtype=np.uint8).reshape(picture["shape"])
        (logits,) = session.run(["logits"], {"image": pixels[None]})
        assert logits[0] == pytest.approx(picture["logits"], rel=1e-4, abs=1e-4)
        assert logits[0] == pytest.approx(picture["artifact_logits"], rel=1e-5, abs=1e-5)
        assert spec_of(exported).class_ids[int(logits[0].argmax())] == picture["label"]
        differences.append(logits[0] - np.array(picture["artifact_logits"]))
    assert np.sqrt(np.mean(np.square(differences))) <= known["limit"] < 1e-3


def test_the_limit_in_the_json_is_that_of_verify(exported: Exported) -> None:
    """Worked out here from the arrays: twice the largest of 20 float32 floors, in logits."""
    with np.load(golden.golden_path(exported.path)) as vectors:
        exact, checkpoint = vectors["exact"], vectors["checkpoint"].astype(np.float64)
    signal = np.sqrt(np.mean(np.square(exact - exact.mean(axis=0))))
    floor = np.sqrt(np.mean(np.square(checkpoint - exact)))
    known = json.loads(golden.json_path(exported.path).read_text())
    assert known["limit"] == pytest.approx(2 * max(20 * floor, 20 * np.finfo(np.float32).eps * signal), rel=1e-6)


def test_vectors_survive_writing_and_reading(exported: Exported, tmp_path: Path) -> None:
    spec = spec_of(exported)
    vectors = golden.read_golden(exported.path, spec)
    golden.write_golden(tmp_path / "again.onnx", vectors, spec, FP32)
    back = golden.read_golden(tmp_path / "again.onnx", spec)
    assert back.pictures.pngs == vectors.pictures.pngs
    assert (back.exact == vectors.exact).all()
    assert golden.golden_path(exported.path).read_bytes() == golden.golden_path(tmp_path / "again.onnx").read_bytes()


def test_absent_damaged_and_foreign_vectors_are_refused(copied: Path, exported: Exported) -> None:
    spec, path = spec_of(exported), golden.golden_path(copied)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="not a file of golden vectors"):
            golden.read_golden(copied, spec)
    names = ("a", "b")
    path.write_bytes(whole)
    other = ModelSpec(class_names=names, class_ids=names, preprocess=spec.preprocess)
    with pytest.raises(ArtifactError, match="does not fit the model"):
        golden.read_golden(copied, other)
    path.unlink()
    with pytest.raises(ArtifactError, match="has no golden vectors"):
        golden.read_golden(copied, spec)


def test_a_file_that_would_run_code_is_not_loaded(copied: Path, exported: Exported, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (tmp_path / "executed").mkdir, ()

    np.savez(golden.golden_path(copied), pixels=np.array([Malicious()], dtype=object))
    with pytest.raises(ArtifactError, match="not a file of golden vectors"):
        golden.read_golden(copied, spec_of(exported))
    assert not (tmp_path / "executed").exists()
