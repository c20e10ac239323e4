from __future__ import annotations

from pathlib import Path

import pytest

from tinyres.data.layout import Layout, read_layout
from tinyres.data.sources import PictureTree
from tinyres.data.store import FolderStore
from tinyres.errors import DataError


def tree(root: Path, *names: str, text: dict[str, str] | None = None) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture") if not name.endswith("/") else path.mkdir(exist_ok=True)
    for name, content in (text or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def layout_of(root: Path) -> Layout:
    return read_layout(FolderStore(root), place="here")


OFFICIAL = (
    "set/train/n02/images/n02_0.JPEG",
    "set/train/n01/images/n01_0.JPEG",
    "set/train/n01/images/n01_1.JPEG",
    "set/val/images/val_0.JPEG",
    "set/val/images/val_1.JPEG",
    "set/test/images/test_0.JPEG",
)
ANNOTATIONS = "val_0.JPEG\tn02\t0\t32\t44\t62\nval_1.JPEG\tn01\t52\t55\t57\t59\n"


def test_official_layout_takes_val_from_its_annotations_and_classes_sorted_with_their_words(tmp_path: Path) -> None:
    words = "n01\tgoldfish, Carassius auratus\nn02\tnewt\nn99\tunused\n"
    root = tree(
        tmp_path,
        *OFFICIAL,
        text={"set/val/val_annotations.txt": ANNOTATIONS, "set/words.txt": words, "set/wnids.txt": "n02\nn01\n"},
    )
    layout = layout_of(root)
    assert layout.kind == "tiny-imagenet"
    assert layout.class_ids == ("n01", "n02")
    assert layout.class_names == ("goldfish, Carassius auratus", "newt")
    assert [label for _, label in layout.train] == [0, 0, 1]
    assert layout.val == (("set/val/images/val_0.JPEG", 1), ("set/val/images/val_1.JPEG", 0))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("val_0.JPEG\tn77\t0\t0\t1\t1\n", "line 1 of here names no class"),
        ("val_9.JPEG\tn01\t0\t0\t1\t1\n", "line 1 of here names a picture that is absent: 'val_9.JPEG'"),
        ("val_0.JPEG\n", "line 1"),
        ("", "no picture to validate on"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(tmp_path: Path, annotations: str, message: str) -> None:
    root = tree(tmp_path, *OFFICIAL, text={"set/val/val_annotations.txt": annotations})
    with pytest.raises(DataError, match=message):
        layout_of(root)


def test_val_as_a_folder_per_class_takes_the_classes_of_train(tmp_path: Path) -> None:
    layout = layout_of(tree(tmp_path, "train/a/1.png", "train/b/1.png", "valid/b/2.png"))
    assert layout.kind == "folders"
    assert layout.val == (("valid/b/2.png", 1),)


def test_a_val_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="val/c in here is no class of train/"):
        layout_of(tree(tmp_path, "train/a/1.png", "train/b/1.png", "val/c/2.png"))


def test_plain_class_folders_are_split_by_class_and_always_alike(tmp_path: Path) -> None:
    names = [f"{folder}/{number}.jpg" for folder in ("cat", "dog") for number in range(20)]
    root = tree(tmp_path, *names)
    layout = layout_of(root)
    assert layout.kind == "folders-split"
    assert {label for _, label in layout.val} == {0, 1}
    assert not set(layout.train) & set(layout.val)
    assert len(layout.train) + len(layout.val) == 40
    assert layout_of(root) == layout


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "empty").mkdir(parents=True)
    with pytest.raises(DataError, match="class 'empty' in here has no picture"):
        layout_of(tree(tmp_path, "train/a/1.png", "train/b/1.png"))


@pytest.mark.parametrize("names", [(), ("one/1.png",), ("notes.txt",), ("1.png", "2.png")])
def test_a_place_without_two_classes_is_refused_with_the_layout_to_use(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="valid: at least 2") as caught:
        layout_of(tree(tmp_path, *names))
    assert "FOLDER/CLASS" in str(caught.value.hint)


def test_other_files_and_hidden_ones_are_no_pictures(tmp_path: Path) -> None:
    layout = layout_of(
        tree(tmp_path, "train/a/1.png", "train/a/notes.txt", "train/a/.2.png", "train/b/1.JPG", "val/a/3.webp")
    )
    assert layout.train == (("train/a/1.png", 0), ("train/b/1.JPG", 1))


@pytest.mark.parametrize(
    "names", [("high/cats/a/1.png", "high/old/b/1.png"), ("x/train/a/b/1.png", "x/train/c/d/1.png")]
)
def test_a_place_one_folder_too_high_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="no class folder of here holds pictures itself: those of") as caught:
        layout_of(tree(tmp_path, *names))
    assert "is it one too high?" in str(caught.value.hint)


def test_folders_within_that_all_classes_have_are_no_classes(tmp_path: Path) -> None:
    layout = layout_of(
        tree(tmp_path, *(f"{name}/{day}/{n}.png" for name in "ab" for day in ("mon", "tue") for n in "123"))
    )
    assert (layout.class_ids, len(layout.train) + len(layout.val)) == (("a", "b"), 12)


def test_a_data_set_beside_other_pictures_is_not_taken_silently(tmp_path: Path) -> None:
    names = ("old/train/a/1.png", "old/train/b/1.png", "old/val/a/2.png", "new/c/1.png", "cover.png")
    with pytest.raises(DataError, match=r"here holds classes in 'old', and pictures beside it: 'new/c/1\.png'"):
        layout_of(tree(tmp_path, *names))


def test_pictures_of_a_format_that_is_not_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class 'b' in here has no picture") as caught:
        layout_of(tree(tmp_path, "a/1.png", "a/2.png", "b/1.HEIC"))
    assert caught.value.hint == "its .heic files are not read: convert them"
    (note,) = PictureTree(FolderStore(tree(tmp_path, "b/1.png")), place="here").notes
    assert note == "1 .heic file left out: this format is not read; convert to JPEG or PNG"


def test_splits_in_capitals_are_not_taken_for_classes(tmp_path: Path) -> None:
    root = tree(tmp_path, "Train/a/1.png", "Train/b/1.png", "Val/a/2.png", "Val/b/2.png")
    with pytest.raises(DataError, match="here holds 'Train', 'Val', which would be its classes") as caught:
        layout_of(root)
    assert caught.value.hint == "for a split write train and val in small letters"
    vehicles = tree(tmp_path / "vehicles", "Train/1.png", "Train/2.png", "Bus/1.png", "Bus/2.png")
    assert layout_of(vehicles).class_ids == ("Bus", "Train")


def test_several_data_sets_in_one_folder_are_doubted(tmp_path: Path) -> None:
    names = [f"{day}/{name}/{n}.png" for day in ("old", "new") for name in ("cat", "dog") for n in "123"]
    (note,) = PictureTree(FolderStore(tree(tmp_path / "two", *names)), place="here").notes
    assert note.startswith("every class (new, ...) has pictures in its folders cat and dog: if these are the classes")
    nested = [f"{name}/images/{n}.png" for name in ("cat", "dog") for n in "123"]  # as Tiny ImageNet has them
    assert PictureTree(FolderStore(tree(tmp_path / "one", *nested)), place="here").notes == []
    mixed = [*names, "old/1.png"]
    assert PictureTree(FolderStore(tree(tmp_path / "mixed", *mixed)), place="here").notes == []
