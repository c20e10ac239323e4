from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyres import Classifier, open_runner
from tinyres.data.dataset import open_dataset
from tinyres.decode import pixels_from_file
from tinyres.errors import BackendUnavailable, ImageError, UsageError
from tinyres.export.artifact import Exported
from tinyres.runtime.fake import FakeBackend
from tinyres.runtime.runner import Runner
from tinyres.spec import ModelSpec, Preprocess


@pytest.fixture
def picture(picture_folder: Path) -> Path:
    return sorted((picture_folder / "val" / "ring").iterdir())[0]


def test_a_picture_is_the_same_however_it_is_given(exported: Exported, picture: Path) -> None:
    with Classifier(exported.path) as classify:
        image = Image.open(picture)
        ways = [picture, str(picture), picture.read_bytes(), image, np.asarray(image.convert("RGB"))]
        first, *others = [classify(way) for way in ways]
        assert all(other == first for other in others)
        assert first.label == first.best[0].name
        assert [guess.probability for guess in first.best] == sorted(
            (guess.probability for guess in first.best), reverse=True
        )
        assert sum(guess.probability for guess in first.best) == pytest.approx(1)


def test_probabilities_are_those_in_the_artifact(exported: Exported, picture: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    pixels = np.asarray(Image.open(picture).convert("RGB"))[None]
    (wanted,) = session.run(["probabilities"], {"image": pixels})
    with Classifier(exported.path) as classify:
        found = {guess.id: guess.probability for guess in classify(picture).best}
        assert [found[name] for name in classify.spec.class_ids] == pytest.approx(wanted[0].tolist(), abs=1e-6)


def test_a_list_is_answered_in_order_whatever_the_batch(exported: Exported, picture_folder: Path) -> None:
    pictures = sorted((picture_folder / "val").rglob("*.png"))
    with Classifier(exported.path) as one, Classifier(exported.path, batch=4) as many:
        singly = [one(picture) for picture in pictures]
        together = many(pictures)
    assert [prediction.label for prediction in together] == [prediction.label for prediction in singly]
    assert together[-1].probability == pytest.approx(singly[-1].probability, abs=1e-5)


def test_threads_share_one_classifier(exported: Exported, picture_folder: Path) -> None:
    pictures = sorted((picture_folder / "val").rglob("*.png")) * 4
    with Classifier(exported.path) as classify, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(classify, pictures)) == [classify(picture) for picture in pictures]


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        3,
        None,
    ],
)
def test_what_is_no_picture_is_refused(exported: Exported, picture: object) -> None:
    with Classifier(exported.path) as classify, pytest.raises(ImageError, match="valid:"):
        classify(picture)


def test_top_and_batch_must_be_at_least_one(exported: Exported) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Classifier(exported.path, top=0)


def test_nothing_on_the_way_from_picture_to_label_imports_torch_or_onnx(exported: Exported, picture: Path) -> None:
    program = textwrap.dedent(f"""
        import sys
        from tinyres import Classifier
        with Classifier({str(exported.path)!r}) as classify:
            print(classify({str(picture)!r}).label)
        print(sorted({{"torch", "torchvision", "onnx", "safetensors", "typer", "matplotlib"}} & set(sys.modules)))
    """)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[1] == "[]"


def test_the_predict_command_does_not_import_torch(exported: Exported, picture: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from tinyres.cli import app
        try:
            app(sys.argv[1:])
        except SystemExit as end:
            print(end.code, sorted({"torch", "onnx", "safetensors"} & set(sys.modules)))
    """)
    ended = subprocess.run(
        [sys.executable, "-c", program, "predict", str(picture), "--model", str(exported.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1] == "0 []", ended.stderr


def test_a_photo_is_seen_by_training_and_by_serving_alike(exported: Exported, tmp_path: Path) -> None:
    """Odd size, turned by EXIF, saved as JPEG: the cache and the Classifier must make the same pixels of it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        for number in range(2):
            path = tmp_path / "photos" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.random.default_rng(number).integers(0, 256, (9, 14, 3), dtype=np.uint8)
            Image.fromarray(picture).resize((83, 57)).save(path, exif=exif)
    dataset = open_dataset(str(tmp_path / "photos"), image_size=16, cache_dir=tmp_path / "cache")
    found = sorted(image.tobytes() for split in (dataset.train, dataset.val) for image in split.images)
    with Classifier(exported.path) as classify, open_runner(exported.path) as runner:
        photos = sorted((tmp_path / "photos").rglob("*.jpg"))
        assert found == sorted(pixels_from_file(photo, classify.spec.preprocess).tobytes() for photo in photos)
        pixels = np.stack([pixels_from_file(photo, classify.spec.preprocess) for photo in photos])
        answered = [classify.spec.class_ids[index] for index in runner(pixels).argmax(axis=1)]
        assert [prediction.best[0].id for prediction in classify(photos)] == answered


def test_a_stream_answers_in_order_and_goes_on_after_a_bad_picture(exported: Exported, own_pictures: Path) -> None:
    (own_pictures / "val" / "ring" / "0.png").write_text("not a picture")
    with Classifier(exported.path, batch=4) as classify:
        answered = list(classify.folder(own_pictures / "val"))
        names = [path for path, _ in answered]
        assert names == sorted((own_pictures / "val").rglob("*.png"))
        for path, answer in answered:
            if path.name == "0.png" and path.parent.name == "ring":
                assert isinstance(answer, ImageError)
                assert "0.png is not a readable picture" in str(answer)
            else:
                assert not isinstance(answer, ImageError)
                assert answer.label == classify(path).label


def test_a_stream_without_end_holds_two_batches(exported: Exported, picture: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        content = picture.read_bytes()
        while True:
            taken += 1
            yield content

    with Classifier(exported.path, batch=4) as classify:
        stream = classify.stream(endless())
        for _ in range(8):
            next(stream)
        stream.close()
    assert taken == 12  # two batches answered, the third being decoded


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(exported: Exported, tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with (
        Classifier(exported.path) as classify,
        pytest.raises(ImageError, match=r"exceeds limit|valid: up to"),
    ):
        classify(tmp_path / "huge.png")


def test_an_array_of_another_size_is_fitted_as_a_picture_is(exported: Exported) -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 23, 3), dtype=np.uint8)
    with Classifier(exported.path) as classify:
        assert classify(array) == classify(Image.fromarray(array))


def test_a_picture_that_pillow_opened_but_cannot_decode_is_an_image_error(exported: Exported, picture: Path) -> None:
    whole = io.BytesIO()
    Image.open(picture).resize((200, 200)).save(whole, "PNG")
    cut = Image.open(io.BytesIO(whole.getvalue()[:-500]))
    with Classifier(exported.path) as classify:
        with pytest.raises(ImageError, match="the picture is not a readable picture"):
            classify(cut)
        (first, second) = classify.stream([cut, Image.open(picture)])
        assert isinstance(first[1], ImageError)
        assert not isinstance(second[1], ImageError)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_no_prediction(bad: float) -> None:
    names = ("a", "b", "c")
    spec = ModelSpec(class_names=names, class_ids=names, preprocess=Preprocess(image_size=8))
    backend = FakeBackend(spec, lambda images: np.full((len(images), 3), [1, bad, 0], dtype=np.float32))
    with Classifier(Runner(backend)) as classify, pytest.raises(BackendUnavailable, match="NaN or infinity"):
        classify(np.zeros((8, 8, 3), np.uint8))


def test_an_open_file_is_a_picture_as_its_bytes_are(exported: Exported, picture_folder: Path) -> None:
    path = next((picture_folder / "val" / "ring").iterdir())
    with Classifier(exported.path) as classify, path.open("rb") as file:
        assert classify(file) == classify(io.BytesIO(path.read_bytes())) == classify(path)
        with pytest.raises(ImageError, match="StringIO is no picture"):
            classify(io.StringIO("text"))  # type: ignore[call-overload]


def test_after_its_end_a_classifier_says_that_it_was_closed(exported: Exported, picture_folder: Path) -> None:
    with Classifier(exported.path) as classify:
        pass
    with pytest.raises(UsageError, match="onnxruntime-cpu was closed and answers no more"):
        classify(next((picture_folder / "val" / "ring").iterdir()))
