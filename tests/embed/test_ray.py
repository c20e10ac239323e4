"""embed/ray in a real local Ray cluster: every picture once, through killed workers and a killed program."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from elsewhere import EMBED, REPOSITORY, Ended, environment, run
from PIL import Image

from tinyres import Classifier
from tinyres.data.shapes import render

pytestmark = pytest.mark.slow

PROGRAM = EMBED / "ray" / "classify.py"
DISTINCT = 60
IMAGES, PART = 6_000, 300
MOST_MIB = 600
"""Of one worker. Python with Ray, Arrow and ONNX Runtime takes most of it before the first picture."""

READ = """
import json, sys
from pathlib import Path
import pyarrow.parquet as pq
found = {path.stem: pq.read_table(path).to_pylist() for path in sorted(Path(sys.argv[1], "parts").glob("*.parquet"))}
print(json.dumps(found))
"""
MAKE_PARQUET = """
import sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
files = sorted(Path(sys.argv[1]).rglob("*.*"))
content = [file.read_bytes() for file in files]
names = [file.relative_to(sys.argv[1]).as_posix() for file in files]
half, out = len(files) // 2, Path(sys.argv[2])
pq.write_table(pa.table({"path": names[:half], "image": content[:half]}), out / "a.parquet", row_group_size=70)
as_struct = [{"bytes": data, "path": name} for data, name in zip(content[half:], names[half:])]
pq.write_table(pa.table({"path": names[half:], "image": as_struct}), out.parent / "struct.parquet", row_group_size=70)
pq.write_table(pa.table({"path": names[half:], "image": content[half:]}), out / "b.parquet", row_group_size=70)
"""
POISON = """
import os
import PIL.Image
usual = PIL.Image.open
def open_or_die(file, **how):
    if file.getvalue().startswith(b"POISON"):
        os._exit(1)  # as a decoder that crashes
    return usual(file, **how)
PIL.Image.open = open_or_die
"""


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter that has Ray."""
    return environment("ray", "-e", f"{REPOSITORY}[cpu]", "ray[data]>=2.50,<2.64") / "python"


@pytest.fixture(scope="session")
def distinct(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Drawn pictures of several sizes and formats."""
    folder = tmp_path_factory.mktemp("distinct")
    files = []
    for index in range(DISTINCT):
        file = folder / f"{index:02}.{('jpg', 'png', 'webp')[index % 3]}"
        Image.fromarray(render("val", index, (64, 96, 150)[index % 3])).save(file)
        files.append(file)
    return files


@pytest.fixture(scope="session")
def expected(models: Path, distinct: list[Path]) -> list[tuple[str, str, float]]:
    """What tinyres in Python answers to each of them."""
    with Classifier(models / "fp32.onnx", top=1, threads=1) as classify:
        best = [prediction.best[0] for prediction in classify(distinct)]
    return [(guess.id, guess.name, guess.probability) for guess in best]


def make_folder(folder: Path, distinct: list[Path], images: int, bad: int) -> dict[str, int | None]:
    """A tree of the same pictures under `images` names and `bad` files that are none; by key, which picture it is."""
    held: dict[str, int | None] = {}
    for number in range(images):
        file = distinct[number % DISTINCT]
        key = f"{number % 20:02}/{number:06}{file.suffix}"
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, folder / key)
        held[key] = number % DISTINCT
    for number in range(bad):
        key = f"{number % 20:02}/bad-{number:02}.jpg"
        (folder / key).write_bytes((b"", b"no picture", distinct[0].read_bytes()[:200])[number % 3])
        held[key] = None
    (folder / "README.txt").write_text("passed over")
    return held


def command(python: Path, *words: object) -> list[str]:
    return [str(word) for word in (python, PROGRAM, *words)]


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, so that no other Ray on this machine is looked at or touched."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # it has just ended
    found, layer = [], {pid}
    while layer := {child for child, parent in parents.items() if parent in layer}:
        found += sorted(layer)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_of(pid: int) -> list[int]:
    """The processes of the actors, which Ray names so once they are at work."""
    found = []
    for child in descendants(pid):
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::MapWorker"):
            found.append(child)
    return found


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 240) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} in {timeout_s} s"
        threading.Event().wait(0.05)
    return found


@contextmanager
def started(python: Path, *words: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program, running; what is left of its processes afterwards is ended and is a failure."""
    with log.open("wb") as file:
        program = subprocess.Popen(command(python, *words), stdout=file, stderr=subprocess.STDOUT)
        family: set[int] = set()
        try:
            wait_until(lambda: descendants(program.pid), "cluster")
            yield program
            family |= set(descendants(program.pid))
        finally:
            family |= set(descendants(program.pid))
            program.kill()
            program.wait()
    try:
        wait_until(lambda: not any(map(alive, family)), "end of the cluster", 60)
    finally:
        for pid in filter(alive, family):
            os.kill(pid, signal.SIGKILL)


def classify(python: Path, *words: object, env: dict[str, str] | None = None) -> Ended:
    if env is None:
        return run(*command(python, *words), timeout=400)
    ended = subprocess.run(command(python, *words), capture_output=True, text=True, timeout=400, env=os.environ | env)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def answers_of(python: Path, out: Path) -> list[dict[str, Any]]:
    read = run(python, "-c", READ, out)
    assert read.code == 0, read.err
    return [row for rows in json.loads(read.out).values() for row in rows]


def parts_of(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (out / "parts").glob("*.parquet")}


def failures_of(out: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row["error"] for row in rows}


def require_right(
    rows: list[dict[str, Any]], held: dict[str, int | None], expected: list[tuple[str, str, float]]
) -> None:
    """Each key once, with Python's answer or an error."""
    assert sorted(row["key"] for row in rows) == sorted(held)
    for row in rows:
        picture = held[row["key"]]
        if picture is None:
            assert row["class_id"] is row["name"] is row["probability"] is None
            assert row["error"]
        else:
            class_id, name, probability = expected[picture]
            assert (row["class_id"], row["name"], row["error"]) == (class_id, name, None)
            assert row["probability"] == pytest.approx(probability, abs=1e-4)


def test_every_image_is_answered_once_when_a_worker_is_killed(
    python: Path, models: Path, distinct: list[Path], expected: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    source, out, log = tmp_path / "source", tmp_path / "out", tmp_path / "log"
    held = make_folder(source, distinct, IMAGES, 20)

    with started(python, models / "fp32.onnx", source, out, "--workers", 2, "--part-images", PART, log=log) as program:
        wait_until(lambda: len(parts_of(out)) >= 2, "parts")
        victim, other = wait_until(lambda: pair if len(pair := workers_of(program.pid)) == 2 else None, "workers")
        seen_mib = max(peak_mib(victim), peak_mib(other))
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(set(workers_of(program.pid)) - {victim}) == 2, "worker in its place")
        code = program.wait(timeout=600)

    assert code == 0, log.read_text()
    require_right(answers_of(python, out), held, expected)
    assert set(failures_of(out)) == {key for key, picture in held.items() if picture is None}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["images"], summary["failed"], summary["parts"]) == (len(held), 20, 21)
    assert summary["parts_open"] == []
    worst_mib = summary["this_run"]["peak_worker_mib"]
    print(f"peak of a worker: {worst_mib} MiB, {seen_mib:.0f} MiB when the first was killed")
    assert max(worst_mib, seen_mib) < MOST_MIB
    assert worst_mib < seen_mib + 100  # most of the run lies between the two


def test_the_same_command_goes_on_when_the_program_was_killed(
    python: Path, models: Path, distinct: list[Path], expected: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    held = make_folder(source, distinct, 3000, 7)
    words = (models / "fp32.onnx", source, out, "--workers", 2, "--part-images", 100)
    with started(python, *words, log=tmp_path / "log") as program:
        wait_until(lambda: len(parts_of(out)) >= 4, "parts")
        program.send_signal(signal.SIGKILL)
        program.wait()
    kept = parts_of(out)
    assert 4 <= len(kept) < 31
    old, new = out / "parts" / ".part-0000030.parquet.old", out / "parts" / ".part-0000030.parquet.new"
    for left in (old, new):
        left.write_bytes(b"what a killed worker leaves")
    os.utime(old, (0, 0))

    again = classify(python, *words)
    once_more = classify(python, *words)

    assert again.code == once_more.code == 0, again.err
    assert kept.items() <= parts_of(out).items()
    assert len(parts_of(out)) == 31
    assert new.exists()
    assert not old.exists()
    require_right(answers_of(python, out), held, expected)
    there = re.search(r"of which (\d+) were there", again.out)
    assert there
    assert len(kept) <= int(there[1]) < 31
    assert "31 of 31 parts, of which 31 were there" in once_more.out


def test_the_rest_is_done_when_a_part_kills_its_worker_each_time(
    python: Path, models: Path, distinct: list[Path], expected: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    held = make_folder(source, distinct, 200, 0)
    poison = source / "00" / "000100.zzz.jpg"
    poison.write_bytes(b"POISON")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    words = (models / "fp32.onnx", source, out, "--workers", 2, "--part-images", 10)

    ended = classify(python, *words, env={"PYTHONPATH": str(tmp_path / "site")})
    rows = answers_of(python, out)
    mended = classify(python, *words)

    assert ended.code == 1
    assert "error: 1 parts are not answered" in ended.err
    assert "hint: run the same command again" in ended.err
    assert len(parts_of(out)) == 21
    assert len(rows) == 191
    assert mended.code == 0, mended.err
    assert list(failures_of(out)) == ["00/000100.zzz.jpg"]
    require_right(answers_of(python, out), held | {"00/000100.zzz.jpg": None}, expected)


def test_parquet_and_webdataset_get_the_answers_of_the_folder(
    python: Path, models: Path, distinct: list[Path], expected: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    folder, parquet, tars = (tmp_path / name for name in ("folder", "parquet", "tars"))
    held = make_folder(folder, distinct, 300, 3)
    (folder / "README.txt").unlink()
    parquet.mkdir()
    tars.mkdir()
    assert run(python, "-c", MAKE_PARQUET, folder, parquet).code == 0
    for number, lot in enumerate([sorted(held)[:100], sorted(held)[100:200], sorted(held)[200:]]):
        file, mode = (tars / f"{number}.tar.gz", "w:gz") if number == 1 else (tars / f"{number}.tar", "w")
        with tarfile.open(file, mode, dereference=True) as tar:
            for key in lot:
                tar.add(folder / key, key)
                add_bytes(tar, f"{key}.json", b"{}")
    whole = (tars / "2.tar").read_bytes()
    (tars / "cut.tar").write_bytes(whole[: len(whole) // 2])
    (tars / "damaged.tar").write_bytes(whole[:1024] + b"\xff" * 4096 + whole[5120:])
    with tarfile.open(tars / "links.tar", "w") as tar:
        for key in sorted(held)[:4]:
            tar.add(folder / key, key)
            tar.add(folder / key, f"again/{key}")  # a hard link to what was just added
    (tars / "text.tar").write_text("this is not a tar\n" * 100)
    (parquet / "text.parquet").write_text("this is not Parquet\n" * 100)
    model, two = models / "fp32.onnx", ("--workers", 2)

    from_folder = classify(python, model, folder, tmp_path / "a", *two, "--part-images", 50)
    from_parquet = classify(python, model, parquet.as_uri(), tmp_path / "b", *two, "--key", "path")
    from_struct = classify(python, model, tmp_path / "struct.parquet", tmp_path / "c", *two)
    from_tars = classify(python, model, tars, (tmp_path / "d").as_uri(), *two)

    for ended in (from_folder, from_parquet, from_struct, from_tars):
        assert ended.code == 0, ended.err
    require_right(answers_of(python, tmp_path / "a"), held, expected)
    require_right(answers_of(python, tmp_path / "b"), held | {"text.parquet": None}, expected)
    assert "cannot be read to its end" in failures_of(tmp_path / "b")["text.parquet"]
    second = sorted(held)[len(held) // 2 :]
    by_row = {f"struct.parquet#{row}": held[key] for row, key in enumerate(second)}
    require_right(answers_of(python, tmp_path / "c"), by_row, expected)
    rows = {row["key"]: row for row in answers_of(python, tmp_path / "d")}
    failed = failures_of(tmp_path / "d")
    assert {"cut.tar", "damaged.tar", "text.tar"} <= set(failed)
    assert [failed[f"links.tar#again/{key}"] for key in sorted(held)[:4]] == ["it is a link in a tar"] * 4
    tar_of = {
        key: f"{number // 100}.tar{'.gz' if number // 100 == 1 else ''}" for number, key in enumerate(sorted(held))
    }
    tar_of |= dict.fromkeys(sorted(held)[300:], "2.tar")
    by_member = {f"{tar_of[key]}#{key}": picture for key, picture in held.items()}
    require_right([rows[key] for key in by_member], by_member, expected)
    of_cut = [key for key in rows if key.startswith("cut.tar#")]
    assert 10 < len(of_cut) < 60  # those before the cut


def add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def test_failed_parts_are_done_again_when_asked(
    python: Path, models: Path, distinct: list[Path], expected: list[tuple[str, str, float]], tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    held = make_folder(source, distinct, 60, 0)
    unreadable = source / "00" / "000000.jpg"
    content = unreadable.read_bytes()
    unreadable.unlink()
    unreadable.write_bytes(b"\0" * len(content))
    words = (models / "fp32.onnx", source, out, "--workers", 1, "--part-images", 20)
    first = classify(python, *words)
    assert list(failures_of(out)) == ["00/000000.jpg"]
    unreadable.write_bytes(content)

    again = classify(python, *words, "--retry-failed")

    assert first.code == again.code == 0, again.err
    assert "of which 2 were there" in again.out
    require_right(answers_of(python, out), held, expected)
    assert failures_of(out) == {}


def test_errors_are_one_line_when_the_input_is_wrong(
    python: Path, models: Path, distinct: list[Path], foreign_model: Path, tmp_path: Path
) -> None:
    source, out, model = tmp_path / "source", tmp_path / "out", models / "fp32.onnx"
    make_folder(source, distinct, 10, 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    mixed = tmp_path / "mixed"
    make_folder(mixed, distinct, 1, 0)
    (mixed / "a.tar").write_bytes(b"")
    assert classify(python, model, source, out, "--workers", 1).code == 0
    kept = parts_of(out)

    for words, told in (
        ((models / "fp16.onnx", source, out), "holds another job: model_sha256 was "),
        ((model, source, out, "--part-images", 5), "holds another job: part_images was 1000, is 5"),
        ((model, mixed, out, "--kind", "folder"), "holds another job: source was "),
        ((foreign_model, source, tmp_path / "new"), "foreign.onnx"),
        ((tmp_path / "none.onnx", source, tmp_path / "new"), "none.onnx"),
        ((model, tmp_path / "empty", tmp_path / "new"), "nothing to classify in"),
        ((model, tmp_path / "absent", tmp_path / "new"), "there is no "),
        ((model, source, tmp_path / "full"), "is not empty, and no job was begun in it"),
        ((model, source, source / "out"), "would become part of the source"),
        ((model, mixed, tmp_path / "new"), "holds files of folder and webdataset"),
        ((model, source, tmp_path / "new", "--batch", "0"), "must be at least 1"),
        ((model, source, tmp_path / "big", "--cpus-per-worker", "4096"), "no machine has 4096 CPUs"),
        ((model, source), "SOURCE and OUT"),
    ):
        ended = classify(python, *words)
        errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert (ended.code, len(errors)) == (2, 1), ended.err
        assert told in errors[0]
        assert "Traceback" not in ended.err
        assert ended.out == ""
    assert not (tmp_path / "new").exists()
    (source / "00" / "late.jpg").write_bytes(distinct[0].read_bytes())
    assert "source_sha256 was" in classify(python, model, source, out).err
    assert parts_of(out) == kept


def test_nothing_is_done_when_every_picture_is_bad(python: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(3):
        (tmp_path / "source" / f"{number}.jpg").write_text("no picture")

    ended = classify(python, models / "fp32.onnx", tmp_path / "source", tmp_path / "out", "--workers", 1)

    assert ended.code == 1
    assert "error: no picture could be answered" in ended.err


def test_verify_proves_the_model_and_fails_when_the_golden_vectors_differ(
    python: Path, models: Path, tmp_path: Path
) -> None:
    proven = classify(python, models / "fp32.onnx", "--verify")
    assert proven.code == 0, proven.err
    assert proven.out.startswith("proven: ")

    model = tmp_path / "fp32.onnx"
    model.write_bytes((models / "fp32.onnx").read_bytes())
    original = (models / "fp32.onnx.golden.json").read_text()
    for change, code, told in (
        (lambda golden: golden["pictures"][0].update(label="n01443537"), 3, "picture 0 is not that of its logits"),
        (lambda golden: golden["pictures"][1]["artifact_logits"].__setitem__(5, -1e3), 3, "is off by RMS"),
        (
            lambda golden: golden["pictures"][1]["artifact_logits"].__setitem__(5, float("nan")),
            3,
            "not that of its logits",
        ),
        (lambda golden: golden["pictures"][2].update(pixels=golden["pictures"][3]["pixels"]), 3, "gets other pixels"),
        (lambda golden: golden.update(pictures=[]), 2, "no golden vectors"),
        (lambda golden: golden.update(schema=1), 2, "no golden vectors"),
        (lambda golden: golden.pop("limit"), 2, "no golden vectors"),
    ):
        golden = json.loads(original)
        change(golden)
        (tmp_path / "fp32.onnx.golden.json").write_text(json.dumps(golden))
        ended = classify(python, model, "--verify")
        assert (ended.code, ended.out) == (code, ""), ended.err
        assert told in ended.err
        assert "Traceback" not in ended.err


if sys.platform != "linux":
    pytest.skip("processes are found in /proc", allow_module_level=True)
