from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyres.data import cache, shapes
from tinyres.data.dataset import open_dataset, with_holdout
from tinyres.data.sources import Shapes, find_source
from tinyres.errors import DataError
from tinyres.progress import Silent
from tinyres.spec import Preprocess

SIXTEEN = Preprocess(image_size=16)


class Listening(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_arrays_hold_every_picture_under_its_class(own_pictures: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache")
    assert dataset.manifest.class_ids == ("circle", "ring", "triangle")
    assert dataset.manifest.counts == {"train": 60, "val": 15}
    wanted = {
        (label, Image.open(path).tobytes())
        for label, name in enumerate(dataset.manifest.class_ids)
        for path in (own_pictures / "train" / name).iterdir()
    }
    found = {
        (int(label), image.tobytes()) for image, label in zip(dataset.train.images, dataset.train.labels, strict=True)
    }
    assert found == wanted


def test_a_zip_and_the_folder_it_was_made_from_give_the_same_arrays(own_pictures: Path, tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(own_pictures.rglob("*.png")):
            file.write(path, path.relative_to(own_pictures.parent))
    from_zip = open_dataset(str(archive), image_size=16, cache_dir=tmp_path / "cache")
    from_folder = open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache")
    for first, second in ((from_zip.train, from_folder.train), (from_zip.val, from_folder.val)):
        assert (first.images == second.images).all()
        assert (first.labels == second.labels).all()


def test_a_second_opening_reuses_the_cache(own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(cache, "_build", None)  # would fail if called
    assert len(open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache").train) == 60


def test_unreadable_pictures_are_named_counted_and_left_out(own_pictures: Path, tmp_path: Path) -> None:
    (own_pictures / "train" / "ring" / "1.png").write_text("no picture")
    (own_pictures / "val" / "ring" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    listener = Listening()
    dataset = open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache", progress=listener)
    assert dataset.manifest.counts == {"train": 59, "val": 15}
    assert [bad.name for bad in dataset.manifest.unreadable] == ["train/ring/1.png", "val/ring/broken.jpg"]
    assert len(dataset.train.images) == len(dataset.train.labels) == 59
    assert (np.bincount(dataset.train.labels) == [20, 19, 20]).all()
    assert any("2 pictures cannot be read, listed in" in warning for warning in listener.warnings)


def test_a_class_without_a_readable_picture_is_refused_and_leaves_nothing(own_pictures: Path, tmp_path: Path) -> None:
    for path in (own_pictures / "train" / "ring").iterdir():
        path.write_text("no picture")
    with pytest.raises(DataError, match="class 'ring' has no readable training picture"):
        open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")] == []


def test_statistics_equal_those_computed_from_all_pixels_at_once(own_pictures: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache")
    pixels = np.asarray(dataset.train.images, dtype=np.float64) / 255
    statistics = dataset.manifest.statistics
    assert statistics.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert statistics.std_pixels == pytest.approx(pixels.std(axis=(0, 1, 2)))
    assert statistics.std == pytest.approx(pixels.std(axis=(1, 2)).mean(axis=0))


def test_an_interrupted_build_goes_on_where_it_stopped(
    own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 10)
    source = find_source(str(own_pictures))
    done = cache._decode
    calls: list[int] = []

    def decode(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return done(*arguments)

    monkeypatch.setattr(cache, "_decode", decode)
    with pytest.raises(KeyboardInterrupt):
        cache.build(source, SIXTEEN, tmp_path, Silent())
    folder = cache.build(source, SIXTEEN, tmp_path, Silent())
    assert len(calls) == 4 + 5  # 8 chunks: 3 done, one interrupted, 5 left
    fresh = cache.build(source, SIXTEEN, tmp_path / "fresh", Silent())
    for name in ("train.images.npy", "train.labels.npy", "val.images.npy", "val.labels.npy"):
        assert (folder / name).read_bytes() == (fresh / name).read_bytes()


def test_a_torn_line_of_the_journal_is_ignored(own_pictures: Path, tmp_path: Path) -> None:
    source = find_source(str(own_pictures))
    folder = tmp_path / f"{source.kind}-{cache.fingerprint_of(source, SIXTEEN)[:16]}.partial"
    folder.mkdir()
    (folder / "done.jsonl").write_text('{"split": "train", "start": 0, "st')
    built = cache.build(source, SIXTEEN, tmp_path, Silent())
    assert json.loads((built / "manifest.json").read_text())["counts"] == {"train": 60, "val": 15}


def test_builds_that_are_cut_off_twice_still_go_on(
    own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torn line in the journal, then another interruption, then one after the gaps were closed."""
    monkeypatch.setattr(cache, "CHUNK", 10)
    (own_pictures / "train" / "ring" / "1.png").write_text("no picture")
    source = find_source(str(own_pictures))
    partial = tmp_path / f"{source.kind}-{cache.fingerprint_of(source, SIXTEEN)[:16]}.partial"
    real_decode, real_save = cache._decode, cache.records.save

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        calls: list[int] = []
        patch.setattr(
            cache, "_decode", lambda *a: real_decode(*a) if len(calls) < 3 and not calls.append(1) else interrupted()
        )
        with pytest.raises(KeyboardInterrupt):
            cache.build(source, SIXTEEN, tmp_path, Silent())
    with (partial / "done.jsonl").open("a") as journal:
        journal.write('{"split": "tra')
    with monkeypatch.context() as patch:
        calls = []
        patch.setattr(
            cache, "_decode", lambda *a: real_decode(*a) if len(calls) < 2 and not calls.append(1) else interrupted()
        )
        with pytest.raises(KeyboardInterrupt):
            cache.build(source, SIXTEEN, tmp_path, Silent())
    with monkeypatch.context() as patch:
        patch.setattr(cache.records, "save", interrupted)  # after the gaps are closed
        with pytest.raises(KeyboardInterrupt):
            cache.build(source, SIXTEEN, tmp_path, Silent())
    assert cache.records.save is real_save
    folder = cache.build(source, SIXTEEN, tmp_path, Silent())
    fresh = cache.build(source, SIXTEEN, tmp_path / "fresh", Silent())
    for name in ("train.images.npy", "train.labels.npy"):
        assert (folder / name).read_bytes() == (fresh / name).read_bytes()


def test_a_disk_that_fills_up_is_an_error_and_not_the_end_of_the_process(own_pictures: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from tinyres.data.dataset import open_dataset\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"  # a write past this fails as on a full disk
        "open_dataset(sys.argv[1], image_size=16, cache_dir=Path(sys.argv[2]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, own_pictures, tmp_path / "cache"], capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "StorageError: cannot write" in ended.stderr


def test_a_link_to_nothing_is_an_unreadable_picture(own_pictures: Path, tmp_path: Path) -> None:
    (own_pictures / "train" / "ring" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    dataset = open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache")
    assert [bad.name for bad in dataset.manifest.unreadable] == ["train/ring/lost.png"]


def test_a_cache_that_does_not_fit_its_manifest_is_refused(own_pictures: Path, tmp_path: Path) -> None:
    open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("folders-"))
    np.save(folder / "train.labels.npy", np.zeros(3, dtype=np.int64))
    with pytest.raises(DataError, match="does not fit its manifest") as caught:
        open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path)
    assert "remove" in str(caught.value.hint)


@pytest.mark.slow
def test_all_cores_draw_the_same_pictures_as_one(tmp_path: Path) -> None:
    dataset = open_dataset("shapes", image_size=16, cache_dir=tmp_path)
    for index in (0, 7, 2503, 4999):
        assert (dataset.train.images[index] == shapes.render("train", index, 16)).all()
    assert (dataset.train.labels == Shapes().labels("train")).all()


@pytest.mark.slow
@pytest.mark.parametrize("many_names", [False, True], ids=["shapes", "a folder of many files"])
def test_a_script_without_the_main_guard_gets_an_error_not_a_hang(many_names: bool, tmp_path: Path) -> None:
    data = "shapes"
    if many_names:  # more than a pipe to a worker holds
        data = str(tmp_path / "pictures")
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "png")
        for number in range(1200):
            path = Path(data) / f"class{number % 2}" / f"{'long name ' * 12}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.getvalue())
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
            from tinyres.data.dataset import open_dataset
            open_dataset({data!r}, image_size=16)
        """)
    )
    environment = {**os.environ, "TINYRES_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode != 0
    assert "DataError: a process that decodes pictures ended on its own" in ended.stderr


def test_holdout_cuts_a_tenth_of_train_by_seed(own_pictures: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(own_pictures), image_size=16, cache_dir=tmp_path / "cache")
    held = with_holdout(dataset, seed=1)
    assert (len(held.train), len(held.val), held.judged_on) == (54, 6, "holdout")
    pictures = [image.tobytes() for part in (held.train, held.val) for image in part.images]
    assert sorted(pictures) == sorted(image.tobytes() for image in dataset.train.images)
    assert (with_holdout(dataset, seed=1).val.images == held.val.images).all()
    assert (with_holdout(dataset, seed=2).val.images != held.val.images).any()


@pytest.mark.parametrize("data", ["no/such/folder", "tiny-imagnet"])
def test_a_place_that_is_not_there_is_named_with_what_is_valid(data: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder or zip") as caught:
        open_dataset(data, cache_dir=tmp_path)
    assert "tiny-imagenet" in str(caught.value.hint)
