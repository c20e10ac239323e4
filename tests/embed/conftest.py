"""What the tests of `embed/` share: real artifacts of the shipped weights, good and bad pictures, Python's own answers.

They install packages from their registries, so they are no part of `make test`: `make embed-test`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elsewhere import PHOTOS, REAL_ZIP, REPOSITORY, done
from PIL import Image

from tinyres import Classifier


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nano's fp32.onnx and fp16.onnx, proven, and what lies beside them. Not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    tinyres = Path(sys.executable).with_name("tinyres")
    for precision in ("fp32", "fp16"):
        words = ("export", "nano", "--quiet", "--precision", precision, "--out", folder)  # as the READMEs have it
        done(tinyres, *words, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano in int8; its ranges need real pictures."""
    if not REAL_ZIP.is_file():
        pytest.skip("int8 is calibrated on tiny-imagenet-200.zip, which is not beside the repository (shared/data)")
    from tinyres.bench.studies.training import few_classes
    from tinyres.data.tiny_imagenet import WNIDS

    folder = tmp_path_factory.mktemp("int8")
    tinyres = Path(sys.executable).with_name("tinyres")
    few = few_classes(REAL_ZIP, folder / "few.zip", WNIDS, each=5)
    words = ("export", "nano", "--quiet", "--precision", "int8", "--data", few, "--out", folder)
    done(tinyres, *words, "--proof-images", "500", "--calibration-images", "64", cwd=folder)
    return folder / "int8-cpu.onnx"


@pytest.fixture(scope="session")
def python_answers(models: Path) -> Callable[[Path], list[tuple[str, float]]]:
    """The five best names with their probabilities, as tinyres in Python answers with fp32.onnx."""
    classify = Classifier(models / "fp32.onnx")

    def answer(picture: Path) -> list[tuple[str, float]]:
        return [(guess.name, guess.probability) for guess in classify(picture).best]

    return answer


@pytest.fixture(scope="session")
def odd_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of readable pictures that are easy to get wrong."""
    folder = tmp_path_factory.mktemp("odd")
    photo = Image.open(PHOTOS[0]).convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    photo.save(folder / "turned.jpg", exif=turned, quality=95)
    photo.convert("L").save(folder / "gray.png")
    photo.resize((65, 129)).save(folder / "tall.png")
    photo.resize((41, 20)).save(folder / "small.png")
    with_alpha = photo.copy()
    with_alpha.putalpha(255)
    with_alpha.save(folder / "alpha.png")
    deep = (np.asarray(photo.convert("L"), dtype=np.uint16) << 8) | 77
    Image.fromarray(deep).save(folder / "deep.png")
    return folder


@pytest.fixture(scope="session")
def bad_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are no usable picture: empty, text, cut short, and a bomb of 30,000 x 30,000."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is not a picture\n" * 100)
    (folder / "cut.png").write_bytes((REPOSITORY / "docs" / "pictures" / "cat.jpg").read_bytes()[:300])
    Image.new("1", (30_000, 30_000)).save(folder / "huge.png")
    return folder


@pytest.fixture(scope="session")
def foreign_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid ONNX file that tinyres did not make."""
    import onnx

    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, floats, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path: Path = tmp_path_factory.mktemp("foreign") / "foreign.onnx"
    onnx.save(model, path)
    return path
