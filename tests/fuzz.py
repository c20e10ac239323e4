"""Damaged files by the thousand for every reader: `make fuzz`, or `python tests/fuzz.py --cases 10000 --seed 0`.

A real file is changed at the level of bytes and read. It must be read, or refused with a TinyresError; anything else
is a finding: another exception, a crash of the process, more than 20 s, or more memory than a bound. Case N of a reader
is the same bytes at every run with the same kit; `--only READER --first N --cases 1` shows it again. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tinyres.errors import TinyresError

SLOWEST_S = 20
MEMORY = 6 * 2**30
"""Of address space in all, libraries included."""
NUMBERS = (b"-1", b"0", b"1e999", b"99999999999999999999", b"NaN", b"null", b'"x"', b"[]", b"{}")
INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Reader:
    """Something that takes files from strangers."""

    name: str
    home: Path
    """What it needs; copied for each case."""
    file: str
    """In it, the one that is changed."""
    read: Callable[[Path], object]
    """Given the copy."""


class Hang(BaseException):
    """It took too long; no reader may catch it."""


def readers(kit: Path) -> Iterator[Reader]:
    """All of them, over the files of `make_kit`."""
    from tinyres.bench import results
    from tinyres.checkpoint import load_state, load_weights
    from tinyres.data.dataset import open_dataset, read_cache
    from tinyres.decode import pixels_from_file
    from tinyres.describe import describe
    from tinyres.export import golden
    from tinyres.export.certificate import read_certificate
    from tinyres.importing import import_seed, read_history
    from tinyres.runs import Run
    from tinyres.runtime.backends import open_runner
    from tinyres.runtime.metadata import read_artifact
    from tinyres.spec import Preprocess

    small = Preprocess(image_size=16)
    for picture in sorted((kit / "pictures").iterdir()):
        name = f"picture {picture.suffix[1:]}"
        yield Reader(
            name, kit / "pictures", picture.name, lambda home, n=picture.name: pixels_from_file(home / n, small)
        )
    onnx = kit / "export"
    spec = read_artifact(onnx / "fp32.onnx")[1].spec
    yield Reader("artifact's metadata", onnx, "fp32.onnx", lambda home: read_artifact(home / "fp32.onnx"))
    yield Reader("artifact", onnx, "fp32.onnx", lambda home: open_runner(home / "fp32.onnx").close())
    yield Reader(
        "artifact in OpenVINO",
        onnx,
        "fp32.onnx",
        lambda home: open_runner(home / "fp32.onnx", backend="openvino").close(),
    )
    yield Reader("certificate", onnx, "fp32.onnx.json", lambda home: read_certificate(home / "fp32.onnx"))
    yield Reader(
        "golden vectors", onnx, "fp32.onnx.golden.npz", lambda home: golden.read_golden(home / "fp32.onnx", spec)
    )
    run = kit / "run"
    yield Reader("checkpoint", run, "best.safetensors", lambda home: load_weights(home / "best.safetensors").model())
    yield Reader("training state", run, "last.safetensors", lambda home: load_state(home / "last.safetensors"))
    yield Reader("run's config", run, "config.json", lambda home: Run(home).config())
    yield Reader("run's history", run, "history.json", lambda home: Run(home).history())
    yield Reader("run's state", run, "state.json", lambda home: Run(home).state())
    yield Reader(
        "seed's history", run, "training_history.json", lambda home: read_history(home / "training_history.json")
    )
    for name in ("config.json", "best.safetensors", "training_history.json"):
        yield Reader(f"info {name}", run, name, lambda home, n=name: describe(home / n))
    for name in ("fp32.onnx", "fp32.onnx.json", "fp32.onnx.golden.json", "fp32.onnx.golden.npz"):
        yield Reader(f"info {name}", onnx, name, lambda home, n=name: describe(home / n))
    yield Reader("results", kit / "results", "results.json", lambda home: results.load(home / "results.json"))
    yield Reader(
        "state dict", kit / "seed", "seed.pth", lambda home: import_seed(home / "seed.pth", runs=home / "runs")
    )
    yield Reader(
        "zip", kit / "zip", "data.zip", lambda home: open_dataset(str(home / "data.zip"), image_size=16, cache_dir=home)
    )
    annotations = "tiny/val/val_annotations.txt"
    yield Reader(
        "annotations",
        kit / "tree",
        annotations,
        lambda home: open_dataset(str(home / "tiny"), image_size=16, cache_dir=home),
    )
    for file in sorted((kit / "cache").iterdir()):
        yield Reader(f"cache {file.name}", kit / "cache", file.name, lambda home: read_cache(home, name="fuzzed"))


def make_kit(kit: Path) -> None:
    """A small file of each kind, made by tinyres itself."""
    import torch
    from seed_network import seed_network
    from tiny import TINY, write_pictures

    from tinyres import launch
    from tinyres.data import shapes
    from tinyres.data.dataset import open_dataset
    from tinyres.export.pipeline import export_onnx
    from tinyres.progress import Silent
    from tinyres.training.train import train

    (kit / "pictures").mkdir(parents=True)
    drawn = Image.fromarray(shapes.render("val", 0, 40))
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tif", "ppm"):
        drawn.save(kit / "pictures" / f"drawn.{suffix}")
    write_pictures(kit / "data" / "train", classes=3, each=8)
    write_pictures(kit / "data" / "val", classes=3, each=4, split="val")
    started = launch.new_run(str(kit / "data"), TINY, runs=kit / "runs", name="run", progress=Silent())
    train(started.run, started.config, started.dataset, progress=Silent())
    export_onnx(
        started.run.best, kit / "export" / "fp32.onnx", dataset=started.dataset, batches=(1, 2, 3), progress=Silent()
    )
    shutil.copytree(started.run.path, kit / "run")
    (kit / "results").mkdir()
    shutil.copy(Path(__file__).parents[1] / "results" / "bench" / "demo" / "results.json", kit / "results")
    (kit / "seed").mkdir()
    torch.save(
        seed_network(classes=4, blocks=(1, 1, 1, 1), widths=(2, 3, 4, 5)).state_dict(), kit / "seed" / "seed.pth"
    )
    (kit / "zip").mkdir()
    with zipfile.ZipFile(kit / "zip" / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((kit / "data").rglob("*.png")):
            archive.write(path, path.relative_to(kit / "data"))
    tree = kit / "tree" / "tiny"
    lines = []
    for index, path in enumerate(sorted((kit / "data" / "train").rglob("*.png"))):
        ours = tree / "train" / f"n{index % 2:08}" / "images" / path.name
        ours.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, ours)
        if index < 6:
            (tree / "val" / "images").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tree / "val" / "images" / f"val_{index}.JPEG")
            lines.append(f"val_{index}.JPEG\tn{index % 2:08}\t0\t0\t9\t9\n")
    (tree / "val" / "val_annotations.txt").write_text("".join(lines))
    open_dataset(str(kit / "data"), image_size=16, cache_dir=kit / "made")
    (folder,) = (path.parent for path in (kit / "made").rglob("manifest.json"))
    shutil.copytree(folder, kit / "cache")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """`content` with one to four changes of the kinds that broken disks, transfers and ill will make."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        span = min(rng.choice((1, 2, 4, 8, 64, 4096)), len(data) - at)
        kind = rng.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + span] = rng.randbytes(span)
        elif kind == 2:
            del data[at : at + span]
        elif kind == 3:
            data[at:at] = data[at : at + span] * rng.choice((1, 2, 50))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at : at + span] = bytes(span)
        elif kind == 6:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(INTEGERS) % 2 ** (8 * width)
            data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 7:
            digits = [spot for spot in range(at, min(at + 400, len(data))) if 48 <= data[spot] <= 57]
            if digits:
                data[digits[0] : digits[0] + 1] = rng.choice(NUMBERS)
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 16, 1000)))
    return bytes(data)


@contextmanager
def limited_time() -> Iterator[None]:
    """Hang after `SLOWEST_S`."""

    def late(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SLOWEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def try_case(reader: Reader, number: int, seed: int, scratch: Path) -> tuple[str, str]:
    """The kind of outcome ("read", the name of a TinyresError, or "finding"), and what is to be said of it."""
    original = (reader.home / reader.file).read_bytes()
    rng = random.Random(f"{reader.name} {seed} {number}")  # noqa: S311 - the same every time is what is wanted
    content = mutated(original, rng)
    home = scratch / "case"
    shutil.copytree(reader.home, home)
    (home / reader.file).write_bytes(content)
    try:
        with limited_time():
            reader.read(home)
        return "read", ""
    except TinyresError as exc:
        if not str(exc) or "\n" in str(exc):
            return "finding", f"{type(exc).__name__} of no words or several lines: {str(exc)[:200]!r}"
        return type(exc).__name__, ""
    except Hang:
        return "finding", f"more than {SLOWEST_S} s"
    except Exception as exc:  # noqa: BLE001 - that is what is looked for
        where = traceback.extract_tb(exc.__traceback__)[-1]
        return "finding", f"{type(exc).__name__}: {str(exc)[:200]} ({Path(where.filename).name}:{where.lineno})"
    finally:
        shutil.rmtree(home)


def child(kit: Path, names: list[str], start: int, first: int, cases: int, seed: int) -> None:
    """Print each case's outcome as a line of JSON, begun with the case itself, so that a crash has a name.

    The first reader begins at case `start`, the others at `first`.
    """
    chosen = [reader for reader in readers(kit) if reader.name in names]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory(prefix="tinyres-fuzz-") as scratch:
        for reader in chosen:
            for number in range(start, first + cases):
                print(json.dumps([reader.name, number]), flush=True)
                began = time.perf_counter()
                outcome, said = try_case(reader, number, seed, Path(scratch))
                print(json.dumps([outcome, said, round(time.perf_counter() - began, 3)]), flush=True)
            start = first


def fuzz(kit: Path, *, cases: int, seed: int = 0, only: str | None = None, first: int = 0) -> dict[str, object]:
    """Try `cases` of each reader in a process apart, which is started again after a case that kills it."""
    names = [reader.name for reader in readers(kit) if only in (None, reader.name)]
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
    findings: list[dict[str, object]] = []
    slowest = 0.0
    waiting, start = names, first
    while waiting:
        numbers = [str(number) for number in (start, first, cases, seed)]
        words = [sys.executable, __file__, "child", str(kit), json.dumps(waiting), *numbers]
        case: list[object] | None = None
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                found = json.loads(line)
                if len(found) == 2:
                    case = found
                    continue
                assert case is not None
                outcomes[str(case[0])][found[0]] += 1
                slowest = max(slowest, found[2])
                if found[0] == "finding":
                    findings.append({"reader": case[0], "case": case[1], "what": found[1]})
                case = None
        if case is None:
            if process.returncode:
                raise SystemExit(f"the fuzzing process ended with {process.returncode} between cases")
            break
        outcomes[str(case[0])]["finding"] += 1
        findings.append({"reader": case[0], "case": case[1], "what": f"the process died: {process.returncode}"})
        waiting = waiting[waiting.index(str(case[0])) :]
        start = int(str(case[1])) + 1
        if start >= first + cases:
            waiting, start = waiting[1:], first
    total = sum(sum(counts.values()) for counts in outcomes.values())
    return {"cases": total, "seed": seed, "slowest_s": slowest, "outcomes": outcomes, "findings": findings}


def main() -> int:
    """Fuzz and print; 1 if anything was found."""
    if sys.argv[1:2] == ["child"]:
        folder, names, *numbers = sys.argv[2:]
        child(Path(folder), json.loads(names), *map(int, numbers))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=300, help="of each reader")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="READER")
    parser.add_argument("--kit", type=Path, help="kept there, and used again")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tinyres-kit-") as folder:
        kit = asked.kit or Path(folder) / "kit"
        if not kit.exists():
            make_kit(kit)
        found = fuzz(kit, cases=asked.cases, seed=asked.seed, only=asked.only, first=asked.first)
    print(json.dumps(found, indent=1))
    return int(bool(found["findings"]))


if __name__ == "__main__":
    sys.exit(main())
