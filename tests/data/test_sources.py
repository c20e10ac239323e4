from __future__ import annotations

import io
import zipfile
from pathlib import Path

from PIL import Image

from tinyres.data.sources import find_source


def tiny_imagenet(path: Path, *, colors: str = "red green blue", annotated: str = "n02 n01", **extra: bytes) -> Path:
    """A zip in the official layout: two classes with a training picture each, two validation pictures."""
    pictures = ["train/n01/images/a.JPEG", "train/n02/images/b.JPEG", "val/images/val_0.JPEG", "val/images/val_1.JPEG"]
    labels = "".join(f"val_{number}.JPEG\t{wnid}\t0\t0\t1\t1\n" for number, wnid in enumerate(annotated.split()))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/wnids.txt", "n01\nn02\n")
        archive.writestr("set/words.txt", "n01\tone\nn02\ttwo\n")
        archive.writestr("set/val/val_annotations.txt", labels)
        for name, color in zip(pictures, [*colors.split(), "white"], strict=True):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), color).save(buffer, "JPEG")
            archive.writestr(f"set/{name}", buffer.getvalue())
        for name, content in extra.items():
            archive.writestr(f"set/{name}", content)
    return path


def fingerprint(path: Path) -> str:
    return find_source(str(path)).fingerprint()


def test_the_official_archive_and_one_without_its_test_pictures_are_the_same_data(tmp_path: Path) -> None:
    without = tiny_imagenet(tmp_path / "a.zip")
    whole = tiny_imagenet(tmp_path / "b.zip", **{"test/images/test_0.JPEG": b"no label"})
    assert fingerprint(without) == fingerprint(whole)


def test_another_picture_is_other_data(tmp_path: Path) -> None:
    first = tiny_imagenet(tmp_path / "a.zip")
    assert fingerprint(tiny_imagenet(tmp_path / "b.zip", colors="red green black")) != fingerprint(first)


def test_another_label_of_the_same_picture_is_other_data(tmp_path: Path) -> None:
    first = tiny_imagenet(tmp_path / "a.zip")
    assert fingerprint(tiny_imagenet(tmp_path / "b.zip", annotated="n01 n02")) != fingerprint(first)
