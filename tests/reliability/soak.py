"""A Classifier under load for long: 100,000 requests of 8 threads unless `--requests` says. `make soak` runs it.

Pictures come as users send them: paths, encoded bytes, Pillow images, arrays, lists, streams, and among them what is no
picture, which must be refused while the rest goes on. Each answer must be the one that a single thread gets. The run is
cut into windows of the same requests in another order; between two of them nothing runs, and memory, descriptors and
threads are read. Then a Classifier is opened, used and closed again and again. Prints JSON; exit code 1 if a verdict
fails.

Verdicts leave out the first quarter of the windows: each thread has a pool of memory, which grows when that thread
first meets the largest picture while the others hold theirs.
- Memory: what the last window holds beyond the first that counts, and the slope of all of them (Theil-Sen: the median
  of all pairs, which a few odd windows do not move) over the whole run, are both at most MEMORY_MIB.
- Objects of Python: a leak leaves one a request or more, measuring some dozens a window; the slope is at most OBJECTS.
- Descriptors and threads: a leak raises every later window, one that just ends raises a few; so the least of the last
  quarter is at most the least of the first.
- Latency: whatever else runs on the machine doubles the p99 of some windows. A classifier that slows down is slow in
  all late ones, on a quiet machine too. So the p99 of a window counts times the share of the cores that others left to
  it, and the median of the last quarter is at most LATENCY times that of the first; processor time a request, which
  others hardly raise, at most CPU times.
"""

from __future__ import annotations

import argparse
import gc
import io
import random
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import resident
from elsewhere import PHOTOS, done
from PIL import Image

from tinyres import Classifier, environment, records
from tinyres.errors import ImageError

THREADS = 8
WINDOWS = 20
OPENINGS = 300
MEMORY_MIB = 16.0
OBJECTS = 300
LATENCY = 1.5
CPU = 1.25
NOISE = ((64, 64), (96, 70), (40, 52), (224, 224))
"""Heights and widths of drawn pictures; the photographs are larger."""

Opener = Callable[[Path], Classifier]
Nanoseconds = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Request:
    """Something that a user asks, made anew at each call as a server would."""

    name: str
    ask: Callable[[Classifier], object]
    bad: bool = False


@dataclass(frozen=True)
class Window:
    """What was measured at the end of a window, or of some openings."""

    resident_mib: float
    held_mib: float
    objects: int
    """Blocks of memory that Python holds, after what no one refers to is collected."""
    descriptors: int
    threads: int
    p50_ms: float
    p99_ms: float
    others: float
    """Share of the cores' time that went to other processes."""
    cpu_ms: float
    """Processor time of this process, a request."""
    seconds: float


def requests(folder: Path) -> list[Request]:
    """All kinds of requests on pictures in `folder`, which it fills; a third of the kinds are bad."""
    pictures = [Image.fromarray(_noise(size)) for size in NOISE]
    pictures += [photo.copy() for photo in map(Image.open, PHOTOS)]
    encoded, paths = [], []
    for number, picture in enumerate(pictures):
        for kind in ("PNG", "JPEG"):
            buffer = io.BytesIO()
            picture.resize((picture.width // 2, picture.height // 2)).save(buffer, kind)
            encoded.append(buffer.getvalue())
            paths.append(folder / f"{number}.{kind.lower()}")
            paths[-1].write_bytes(encoded[-1])
    arrays = [np.asarray(picture.convert("RGB")) for picture in pictures]
    good: list[tuple[str, Callable[[], Any]]] = []
    for number, content in enumerate(encoded):
        good.append((f"bytes {number}", partial(bytes, content)))
        good.append((f"path {number}", partial(Path, paths[number])))
        good.append((f"image {number}", partial(_opened, content)))
    good += [(f"array {number}", array.copy) for number, array in enumerate(arrays)]
    asked = [Request(name, partial(_one, make)) for name, make in good]
    asked += [
        Request(f"list {number}", partial(_one, partial(list, some)))
        for number, some in enumerate((encoded[:2], paths[3:7], arrays[:3], [str(path) for path in paths[:8]]))
    ]
    wrong = bad_pictures(folder)
    asked += [Request(name, partial(_one, make), bad=True) for name, make in wrong]
    asked.append(Request("list with a bad one", partial(_one, lambda: [*encoded[:2], b"", encoded[3]]), bad=True))
    asked.append(Request("stream with bad ones", partial(_streamed, [encoded[0], b"", encoded[1], b"no", encoded[2]])))
    return asked


def bad_pictures(folder: Path) -> list[tuple[str, Callable[[], Any]]]:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")
    photo = PHOTOS[0].read_bytes()
    (folder / "text.png").write_text("this is not a picture")
    return [
        ("empty bytes", bytes),
        ("text", lambda: b"this is not a picture" * 50),
        ("cut short", lambda: photo[: len(photo) // 2]),
        ("huge header", lambda: huge),
        ("file of text", lambda: folder / "text.png"),
        ("no such file", lambda: folder / "nothing.png"),
        ("floats", lambda: np.zeros((64, 64, 3))),
        ("gray array", lambda: np.zeros((64, 64), np.uint8)),
        ("None", lambda: None),
    ]


def _noise(size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def _one(make: Callable[[], Any], classify: Classifier) -> object:
    return classify(make())


def _streamed(pictures: Sequence[bytes], classify: Classifier) -> object:
    return [_said(answer) for _, answer in classify.stream(pictures)]


def _said(answer: object) -> object:
    """An answer to compare; an object's address is no part of a refusal."""
    return f"refused: {answer}".partition(" object at ")[0] if isinstance(answer, ImageError) else answer


def answer_of(classify: Classifier, request: Request) -> object:
    try:
        return request.ask(classify)
    except ImageError as exc:
        return _said(exc)


class Load:
    """Requests of many threads to one classifier; keeps the first answer to each, and counts those that differ."""

    def __init__(self, classify: Classifier, asked: Sequence[Request], size: int) -> None:
        self.classify, self.asked, self.size = classify, asked, size
        self.answers: dict[int, object] = {}
        self.differing: dict[str, int] = {}
        self._nanoseconds = np.zeros(size, dtype=np.int64)

    def window(self, pool: ThreadPoolExecutor, number: int) -> Window:
        """The same requests as in any window, in an order of its own; what was measured at its end."""
        order = [index % len(self.asked) for index in range(self.size)]
        random.Random(number).shuffle(order)  # noqa: S311 - an order is no secret
        clock = Clock()
        list(pool.map(partial(self._work, order), range(THREADS)))
        return clock.window(self._nanoseconds)

    def _work(self, order: Sequence[int], first: int) -> None:
        for place in range(first, self.size, THREADS):
            request = self.asked[order[place]]
            began = time.perf_counter_ns()
            answer = answer_of(self.classify, request)
            self._nanoseconds[place] = time.perf_counter_ns() - began
            if self.answers.setdefault(order[place], answer) != answer:
                self.differing[request.name] = self.differing.get(request.name, 0) + 1

    def compare(self, single: Classifier) -> None:
        """Hold the answers against those of a single thread, and bad requests to their refusal."""
        for index, request in enumerate(self.asked):
            if index not in self.answers:
                raise SystemExit(f"too few requests: {request.name!r} was never asked")
            wanted = answer_of(single, request)
            refused = isinstance(wanted, str)
            if self.answers[index] != wanted or refused != request.bad:
                self.differing[request.name] = self.differing.get(request.name, 0) + 1


class Clock:
    """Times a window from now on."""

    def __init__(self) -> None:
        self._began, self._own = time.perf_counter(), time.process_time()
        self._counted, self._busy = resident.processor_s()

    def window(self, nanoseconds: Nanoseconds) -> Window:
        """What is measured now, after requests that took so long each."""
        own, seconds = time.process_time() - self._own, time.perf_counter() - self._began
        counted, busy = resident.processor_s()
        others = (busy - self._busy - own) / (counted - self._counted) if counted > self._counted else 0.0
        gc.collect()
        p50, p99 = (float(value) / 1e6 for value in np.percentile(nanoseconds, (50, 99)))
        return Window(
            resident_mib=resident.mib(resident.resident()),
            held_mib=resident.mib(resident.held()),
            objects=sys.getallocatedblocks(),
            descriptors=resident.descriptors(),
            threads=resident.threads(),
            p50_ms=round(p50, 3),
            p99_ms=round(p99, 3),
            others=round(min(max(others, 0.0), 1.0), 3),
            cpu_ms=round(own * 1000 / len(nanoseconds), 3),
            seconds=round(seconds, 3),
        )


def openings(opener: Opener, artifact: Path, request: Request, size: int, windows: int) -> list[Window]:
    """Open, use and close a Classifier `size` times in each window."""
    measured = []
    for _ in range(windows):
        nanoseconds = np.zeros(size, dtype=np.int64)
        clock = Clock()
        for number in range(len(nanoseconds)):
            began = time.perf_counter_ns()
            with opener(artifact) as classify:
                answer_of(classify, request)
            nanoseconds[number] = time.perf_counter_ns() - began
        measured.append(clock.window(nanoseconds))
    return measured


def verdicts(windows: Sequence[Window]) -> dict[str, dict[str, Any]]:
    """What the docstring above says of windows: each with its measure, its limit, and whether it holds."""
    counted = windows[len(windows) // 4 :]
    quarter = max(1, len(counted) // 4)
    first, last = counted[:quarter], counted[-quarter:]
    memory = [window.resident_mib for window in counted]

    def ratio(of: Callable[[Window], float]) -> float:
        return statistics.median(map(of, last)) / statistics.median(map(of, first))

    def more(of: Callable[[Window], int]) -> int:
        return min(map(of, last)) - min(map(of, first))

    return {
        "memory, MiB more at the end": judged(memory[-1] - memory[0], MEMORY_MIB),
        "memory, MiB by its slope over the run": judged(slope(memory) * len(memory), MEMORY_MIB),
        "objects more, a window": judged(slope([window.objects for window in counted]), OBJECTS),
        "descriptors more": judged(more(lambda window: window.descriptors), 0),
        "threads more": judged(more(lambda window: window.threads), 0),
        "p99, late against early": judged(ratio(lambda window: window.p99_ms * (1 - window.others)), LATENCY),
        "processor time, late against early": judged(ratio(lambda window: window.cpu_ms), CPU),
    }


def slope(values: Sequence[float]) -> float:
    """Theil-Sen: the median slope of all pairs, a step."""
    pairs: Iterable[tuple[int, int]] = combinations(range(len(values)), 2)
    return statistics.median((values[late] - values[early]) / (late - early) for early, late in pairs)


def judged(measured: float, limit: float) -> dict[str, Any]:
    return {"measured": round(measured, 3), "limit": limit, "holds": measured <= limit}


def open_classifier(artifact: Path) -> Classifier:
    # Eight threads ask: with one thread an inference all cores work, and no two inferences share one.
    return Classifier(artifact, threads=1)


def soak(
    artifact: Path, folder: Path, *, count: int, opened: int, windows: int = WINDOWS, opener: Opener = open_classifier
) -> dict[str, Any]:
    """Load with `count` requests or more, open and close `opened` times; what was measured and the verdicts on it."""
    asked = requests(folder)
    size, opened = max(len(asked), -(-count // windows)), -(-opened // windows)
    gc.collect()
    gc.freeze()  # what is there already is no leak, and need not be gone through at the end of every window
    with ThreadPoolExecutor(THREADS) as pool:
        with opener(artifact) as classify:
            load = Load(classify, asked, size)
            # The first requests come from all threads at once: a single thread answers afterwards.
            loaded = [load.window(pool, number) for number in range(windows)]
        with open_classifier(artifact) as single:
            load.compare(single)
    opening = openings(opener, artifact, asked[0], opened, windows)
    gc.unfreeze()
    said = {f"load: {name}": verdict for name, verdict in verdicts(loaded).items()}
    said |= {f"opening: {name}": verdict for name, verdict in verdicts(opening).items()}
    said["answers unlike those of a single thread"] = judged(sum(load.differing.values()), 0)
    refused = sum(request.bad for request in asked)
    return {
        "requests": size * windows,
        "kinds": len(asked),
        "bad_kinds": refused,
        "threads": THREADS,
        "openings": opened * windows,
        "verdicts": said,
        "differing": load.differing,
        "load": [asdict(window) for window in loaded],
        "opening": [asdict(window) for window in opening],
    }


def main() -> int:
    """Soak and print; 1 if a verdict fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    asked = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tinyres-soak-") as scratch:
        folder = Path(scratch)
        program = Path(sys.executable).with_name("tinyres")
        done(program, "export", "nano", "--quiet", "--out", folder, cwd=folder)
        found = soak(folder / "fp32.onnx", folder, count=asked.requests, opened=OPENINGS)
    answer = {
        "command": f"python tests/reliability/soak.py --requests {asked.requests}",
        "seconds": round(time.perf_counter() - began, 1),
        **found,
        "environment": environment.capture(),
    }
    print(records.to_json(answer))
    return int(not all(verdict["holds"] for verdict in found["verdicts"].values()))


if __name__ == "__main__":
    sys.exit(main())
