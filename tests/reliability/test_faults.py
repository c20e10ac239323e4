"""A part of what `make faults` tries, a planted defect that it must find, and what it found stays here."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TINY

from tinyres import files, records
from tinyres.data import cache, download
from tinyres.data.sources import find_source
from tinyres.environment import capture
from tinyres.errors import StorageError
from tinyres.export import artifact, triton
from tinyres.export.certificate import certificate_path, read_certificate
from tinyres.export.golden import fingerprint
from tinyres.progress import Silent
from tinyres.runs import Run, create_run, save_config
from tinyres.spec import Preprocess
from tinyres.training import launch
from tinyres.training.train import train
from tinyres.training.trainer import Trainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="faults.py looks into /proc"),
]

SITUATIONS = (
    "two trainings of one run",
    "two builders of one cache",
    "a holder of the run's lock is killed",
    "two exports, one stopped before move 3",
    "history.json vanishes before a resume",
    "pictures vanish while they are decoded",
    "clock: to and fro by years",
)
PROGRAM = f"""
import json
from pathlib import Path
import faults
from tinyres import files

faults.warm_up()
found = {{}}
with faults.scratch_folder() as scratch:
    kit = scratch / "kit"
    faults.in_a_fork(lambda: faults.make_kit(kit))
    found["part"] = faults.faults(kit, faults.Asked(every=70))
    tried = [faults.try_situations(kit, only) for only in {SITUATIONS!r}]
    found["situations"] = [names for names, _ in tried]
    found["situations' findings"] = [finding for _, findings in tried for finding in findings]
    files.write_bytes = lambda path, content: path.write_bytes(content)
    found["planted"] = faults.faults(kit, faults.Asked(only="files", kinds=("kill",), every=2))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> Any:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # the helpers that tests share
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_nothing_is_lost_by_a_part_of_all_faults(found: Any) -> None:
    part = found["part"]
    assert part["findings"] == []
    assert set(part["tried"]) == {"files", "train", "cache", "export", "triton", "bench", "import", "download"}
    assert part["faults"] > 30
    assert set(part["outcomes"]) >= {"refused", "killed", "done"}


def test_nothing_is_lost_by_two_processes_at_once_clocks_and_vanishing_files(found: Any) -> None:
    assert found["situations' findings"] == []
    assert found["situations"] == [[name] for name in SITUATIONS]


def test_a_writer_that_is_not_atomic_is_found(found: Any) -> None:
    planted = found["planted"]
    assert planted["lost"] > 0
    assert any("text.txt is neither the old nor the new one" in finding["what"] for finding in planted["findings"])


def test_a_temporary_that_cannot_be_removed_is_no_other_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        files.write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def test_what_a_killed_writer_left_is_swept_by_the_next_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from tinyres import files\n"
        "path = Path(sys.argv[1])\n"
        "with files.atomic_path(path / 'file.txt'), files.temporary_folder(path / 'file'):\n"
        "    print('there', flush=True); sys.stdin.read(1); os._exit(1)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (tmp_path / ".file.part-00000000-1-x.txt").write_text("of another machine")
        living = {path.name for path in tmp_path.iterdir()}
        write_both(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {*living, "file.txt"}
        other.communicate(".")
    write_both(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".file.part-00000000-1-x.txt", "file.txt"}


def write_both(folder: Path) -> None:
    files.write_text(folder / "file.txt", "whole")
    with files.temporary_folder(folder / "file"):
        pass


def test_an_array_whose_last_byte_finds_no_room_is_an_error(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; import numpy as np; from tinyres.files import write_array\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40127, 40127))\n"
        "write_array(Path(sys.argv[1]), np.zeros(5000))"
    )
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "a.npy"], capture_output=True, text=True)
    assert "StorageError: cannot write" in ended.stderr
    assert list(tmp_path.iterdir()) == []
    files.write_array(tmp_path / "a.npy", np.zeros(5000))
    assert (tmp_path / "a.npy").stat().st_size == 40128


@pytest.mark.parametrize("failing", range(5))
def test_a_publication_that_fails_half_way_leaves_the_artifact_that_was_there(
    failing: int, exported: artifact.Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "export" / exported.path.name
    target.parent.mkdir()
    for path in exported.path.parent.glob(f"{exported.path.name}*"):  # other tests leave theirs beside it
        shutil.copy(path, target.parent)
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert len(before) == 5
    real, moves = Path.replace, [0]

    def replace(path: Path, other: Path) -> Path:
        if other.parent == target.parent and "before" not in path.parent.name:
            moves[0] += 1
            if moves[0] == failing + 1:
                raise OSError(errno.EIO, "Input/output error")
        return real(path, other)

    with artifact.staging(target) as candidate:
        for name in before:
            files.write_bytes(candidate.with_name(name), b"new")
        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(StorageError, match=r"cannot write .*fp32\.onnx"):
            artifact.publish(candidate, target, exported.certificate)
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before
    assert fingerprint(target) == read_certificate(target).golden_sha256


def test_a_first_publication_that_fails_leaves_nothing(
    exported: artifact.Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "fp32.onnx"
    real = Path.replace

    def replace(path: Path, other: Path) -> Path:
        if other == target:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, other)

    with artifact.staging(target) as candidate:
        files.write_bytes(candidate, b"new")
        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(StorageError):
            artifact.publish(candidate, target, exported.certificate)
        assert not certificate_path(target).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_triton_comes_back_if_the_next_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, target = tmp_path / "new" / "m", tmp_path / "models" / "m"
    for folder in (model, target):
        folder.mkdir(parents=True)
        (folder / "whose").write_text(folder.parent.name)
    real = Path.replace

    def replace(path: Path, other: Path) -> Path:
        if path == model:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="Input/output"):
            triton._swap(model, target)
    assert (target / "whose").read_text() == "models"
    triton._swap(model, target)
    assert (target / "whose").read_text() == "new"


def unfinished(pictures: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a build that was cut off when all but its manifest was there, with gaps closed."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    (pictures / "train" / "ring" / "1.png").write_text("no picture")
    with monkeypatch.context() as patch:
        patch.setattr(records, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(pictures, root)
    (partial,) = root.glob("*.partial")
    return partial


def build(pictures: Path, root: Path) -> Path:
    return cache.build(find_source(str(pictures)), Preprocess(image_size=16), root, Silent())


def arrays(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


@pytest.mark.parametrize("gone", ["train.images.npy", "val.images.npy", "done.jsonl", "train.labels.npy"])
def test_a_build_that_lost_a_file_has_no_black_pictures(
    gone: str, own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 10)
    (unfinished(own_pictures, tmp_path / "cache", monkeypatch) / gone).unlink()
    assert arrays(build(own_pictures, tmp_path / "cache")) == arrays(build(own_pictures, tmp_path / "fresh"))


def test_a_build_in_other_chunks_does_not_count_as_done(
    own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cache, "CHUNK", 10)
        partial = unfinished(own_pictures, tmp_path / "cache", monkeypatch)
        lines = (partial / "done.jsonl").read_text().splitlines(keepends=True)
        (partial / "done.jsonl").write_text(lines[0])
    assert arrays(build(own_pictures, tmp_path / "cache")) == arrays(build(own_pictures, tmp_path / "fresh"))


def test_a_damaged_journal_begins_the_build_anew(
    own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (unfinished(own_pictures, tmp_path / "cache", monkeypatch) / "done.jsonl").write_bytes(b"\0" * 100 + b"\n")
    assert arrays(build(own_pictures, tmp_path / "cache")) == arrays(build(own_pictures, tmp_path / "fresh"))


def test_a_cache_without_its_manifest_is_built_again(own_pictures: Path, tmp_path: Path) -> None:
    folder = build(own_pictures, tmp_path)
    whole = arrays(folder)
    (folder / "manifest.json").unlink()
    assert arrays(build(own_pictures, tmp_path)) == whole
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", *[".npy"] * 4]


def test_gaps_are_closed_in_a_file_that_has_its_blocks(
    own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map that meets a full disk ends the process with SIGBUS."""
    (own_pictures / "train" / "ring" / "1.png").write_text("no picture")
    real = cache._reserve

    def reserve(path: Path) -> None:
        if path.suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(cache, "_reserve", reserve)
    with pytest.raises(StorageError, match="No space left"):
        build(own_pictures, tmp_path)


def test_a_run_whose_folder_is_removed_ends_and_does_not_come_back(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = launch.new_run(str(picture_folder), TINY, runs=tmp_path, name="r", progress=Silent())
    real = Trainer.train_step

    def step(trainer: Trainer) -> int:
        if trainer.step == 5:
            shutil.rmtree(started.run.path)
        return real(trainer)

    monkeypatch.setattr(Trainer, "train_step", step)
    with pytest.raises(StorageError, match=r"the run's folder .*r is gone"):
        train(started.run, started.config, started.dataset, progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        Run(tmp_path).lock()


def test_a_run_that_finds_no_room_for_its_config_leaves_its_name_free(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = launch.new_run(str(picture_folder), TINY, runs=tmp_path / "other", progress=Silent()).config
    run = create_run(tmp_path, "r", stem="r")
    real = os.fsync

    def refuse(handle: int) -> None:
        if "env" in os.readlink(f"/proc/self/fd/{handle}"):  # noqa: PTH115 - a handle, not a path
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="No space left"):
            save_config(run, config, capture())
    create_run(tmp_path, "r", stem="r")


def test_a_download_has_its_name_only_when_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"an archive"
    path = tmp_path / "set.zip"
    (tmp_path / "set.zip.part").write_bytes(content)

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    whole = download.Archive("http://localhost/set.zip", len(content), files.sha256_of(tmp_path / "set.zip.part"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match="Input/output error"):
            download.fetch(whole, path, Silent())
    assert not path.exists()
    assert download.fetch(whole, path, Silent()).read_bytes() == content
