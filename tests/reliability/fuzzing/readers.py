"""Who reads files from strangers, with the file of the kit that each reads and the ways to damage it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

from fuzzing import zips
from fuzzing.kit import ONNX, SEED_HISTORY
from fuzzing.mutations import (
    Damage,
    by_array_header,
    by_arrays,
    by_bytes,
    by_json,
    by_lines,
    by_model_metadata,
    by_tensor_header,
    by_values,
    either,
)
from tinyres.errors import DataError, TinyresError

JSON = either(by_bytes, by_json, by_values)
LINES = either(by_bytes, by_lines, by_lines)
TENSORS = either(by_bytes, by_tensor_header)
MODEL = either(by_bytes, by_model_metadata)


@dataclass(frozen=True)
class Reader:
    """Something that takes files from strangers."""

    name: str
    home: Path
    """What it needs; copied for each case."""
    file: str
    """In it, the one that is changed."""
    read: Callable[[Path], object]
    """Given the copy; what it returns is the kind of outcome if it is an Outcome."""
    damage: Damage = by_bytes
    share: float = 1.0
    """Of the cases that others get: some take seconds."""
    undamaged: bool = True
    """It reads the file as the kit has it."""


class Outcome(str):
    """The kind of a good end that is worth counting apart."""

    __slots__ = ()


class Defect(Exception):  # noqa: N818 - it is one of ours, in what was read
    """It was read, and what came of it cannot be right."""


def readers(kit: Path) -> Iterator[Reader]:
    """All of them, over the files of `make_kit`."""
    from fuzzing.commands import command_readers

    yield from _pictures(kit)
    yield from _artifacts(kit)
    yield from _runs(kit)
    yield from _engines(kit)
    yield from _results(kit)
    yield from _data(kit)
    yield from _texts(kit)
    yield from command_readers(kit)


def _pictures(kit: Path) -> Iterator[Reader]:
    from tinyres.decode import pixels_from_file
    from tinyres.spec import Preprocess

    small = Preprocess(image_size=16)
    for picture in sorted((kit / "pictures").iterdir()):
        name = f"picture {picture.suffix[1:]}"
        yield Reader(
            name, kit / "pictures", picture.name, lambda home, n=picture.name: pixels_from_file(home / n, small)
        )


def _artifacts(kit: Path) -> Iterator[Reader]:
    from tinyres.describe import describe
    from tinyres.export import diff, golden
    from tinyres.export.certificate import read_certificate
    from tinyres.export.verify import verify
    from tinyres.progress import Silent
    from tinyres.runtime.backends import open_runner
    from tinyres.runtime.metadata import read_artifact

    onnx = kit / "export"
    spec = read_artifact(onnx / ONNX)[1].spec

    def compare(home: Path) -> None:
        diff.describe(diff.compare(onnx / ONNX, home / ONNX, None, progress=Silent()))

    yield Reader("artifact's metadata", onnx, ONNX, lambda home: read_artifact(home / ONNX), MODEL)
    yield Reader("artifact", onnx, ONNX, lambda home: open_runner(home / ONNX).close(), MODEL)
    yield Reader("diff of artifacts", onnx, ONNX, compare, MODEL, share=0.5)
    yield Reader(
        "artifact in OpenVINO", onnx, ONNX, lambda home: open_runner(home / ONNX, backend="openvino").close(), MODEL
    )
    yield Reader("certificate", onnx, f"{ONNX}.json", lambda home: read_certificate(home / ONNX), JSON)
    yield Reader(
        "certificate that is verified",
        onnx,
        f"{ONNX}.json",
        lambda home: verify(home / ONNX, backend=None, progress=Silent()),
        JSON,
        share=0.5,
    )
    arrays = f"{ONNX}.golden.npz"
    pairs = either(by_bytes, by_arrays)
    yield Reader("golden vectors", onnx, arrays, lambda home: golden.read_golden(home / ONNX, spec), pairs)
    ways = {ONNX: MODEL, f"{ONNX}.json": JSON, f"{ONNX}.golden.json": JSON, arrays: pairs}
    for name, damage in ways.items():
        yield Reader(f"info {name}", onnx, name, lambda home, n=name: describe(home / n).text(), damage)


def _runs(kit: Path) -> Iterator[Reader]:
    from tinyres.checkpoint import load_state, load_weights
    from tinyres.describe import describe
    from tinyres.drawing import draw_curves, find_histories
    from tinyres.recipes import find_recipe
    from tinyres.runs import Run
    from tinyres.seed.importing import import_seed, read_history

    run, seed = kit / "run", kit / "seed"

    def plot(home: Path) -> None:
        histories, _ = find_histories([str(home / SEED_HISTORY)], home)
        draw_curves(home / "curves.png", histories)

    def imported(home: Path, **options: Path) -> None:
        ours = import_seed(home / "seed.pth", runs=home / "runs", **options)
        ours.config()  # what was written can be read
        ours.history()
        describe(ours.path).text()

    yield Reader(
        "checkpoint", run, "best.safetensors", lambda home: load_weights(home / "best.safetensors").model(), TENSORS
    )
    yield Reader("training state", run, "last.safetensors", lambda home: load_state(home / "last.safetensors"), TENSORS)
    yield Reader("run's config", run, "config.json", lambda home: Run(home).config(), JSON)
    yield Reader("recipe file", run, "config.json", lambda home: find_recipe(str(home / "config.json")), JSON)
    yield Reader("run's history", run, "history.json", lambda home: Run(home).history(), JSON)
    yield Reader("run's state", run, "state.json", lambda home: Run(home).state(), JSON)
    yield Reader("seed's history", run, SEED_HISTORY, lambda home: read_history(home / SEED_HISTORY), JSON)
    yield Reader("seed's history, drawn", run, SEED_HISTORY, plot, by_values, share=0.1)
    texts = ("config.json", "state.json", "history.json", "env.json", SEED_HISTORY)
    for name in (*texts, "best.safetensors", "last.safetensors"):
        damage = TENSORS if name.endswith("safetensors") else JSON
        yield Reader(f"info {name}", run, name, lambda home, n=name: describe(home / n).text(), damage)
    yield Reader("state dict", seed, "seed.pth", imported)
    yield Reader(
        "class list of an import",
        seed,
        "classes.txt",
        lambda home: imported(home, classes=home / "classes.txt"),
        LINES,
    )
    yield Reader(
        "history of an import", seed, SEED_HISTORY, lambda home: imported(home, history=home / SEED_HISTORY), JSON
    )


def _engines(kit: Path) -> Iterator[Reader]:
    from tinyres.describe import describe
    from tinyres.runtime.cuda import Device
    from tinyres.runtime.passport import read_passport, require_fit, require_proven
    from tinyres.runtime.tensorrt_library import Library, Messages

    def fits(home: Path) -> None:
        passport = read_passport(home / "fp32.engine")
        if not (passport.key and passport.built_for and passport.rebuild):
            raise Defect("a passport without a key")
        require_proven(home / "fp32.engine")
        for version in ("10.14.0.1", "8.6.1", "11.0.0.post12", "10.13.2.6", "11", "10.0.0b6"):
            library = Library("tensorrt", SimpleNamespace(__version__=version), None, Messages())
            for device in (None, Device("A GPU", 8, 9, "13.0")):
                with suppress(TinyresError):
                    require_fit(passport, library, device)

    home = kit / "engine"
    for file, damage in {"fp32.engine.json": JSON, "fp32.engine": by_bytes}.items():
        yield Reader(f"passport {file}", home, file, fits, damage)
    yield Reader("info fp32.engine", home, "fp32.engine.json", lambda home: describe(home / "fp32.engine").text(), JSON)


def _results(kit: Path) -> Iterator[Reader]:
    from tinyres.bench import against, gate, results
    from tinyres.bench.reports.terminal import aligned, terminal
    from tinyres.bench.reports.write import write_reports
    from tinyres.describe import describe

    home = kit / "results"
    original = results.load(home / "results.json")
    conditions = [gate.parse_condition(text) for text in ("p50>5ms", "drop>1%", "cold>3s", *gate.WORDS)]

    def report(home: Path) -> None:
        found = results.load(home / "results.json")
        paths = write_reports(home / "reports", found)
        _require_harmless_page(next(path for path in paths if path.suffix == ".html").read_text(encoding="utf-8"))
        if results.load(home / "reports" / "results.json") != found:
            raise Defect("results.json read again is another")
        terminal(found)
        with suppress(TinyresError):
            gate.failures(found, conditions, [])
        with suppress(TinyresError):
            changes = against.changes(original, found)
            aligned(against.table(changes), 80)
            gate.failures(found, conditions, changes, ["x"])

    yield Reader("results", home, "results.json", lambda home: results.load(home / "results.json"), JSON)
    yield Reader("reports of results", home, "results.json", report, either(by_json, *[by_values] * 5), share=0.5)
    yield Reader("info results.json", home, "results.json", lambda home: describe(home / "results.json").text(), JSON)


class _Page(HTMLParser):
    """Collects what a page has that the reports never write."""

    TAGS = (
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "figure",
        "figcaption",
        "ul",
        "li",
    )
    TAGS += ("svg", "g", "path", "text", "rect", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "code")
    TAGS += ("details", "summary")

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = [name for name, _ in attrs if name.startswith("on") or name == "src"]
        if tag not in self.TAGS or named or any("\n" in (value or "") for _, value in attrs):
            self.foreign.append(f"<{tag} {named}>")


def _require_harmless_page(text: str) -> None:
    page = _Page()
    page.feed(text)
    if page.foreign:
        raise Defect(f"text of the results became {page.foreign[:3]} in the page")


def _data(kit: Path) -> Iterator[Reader]:
    from tinyres.data.dataset import open_dataset, read_cache
    from tinyres.data.store import ZipStore

    def opened(home: Path, name: str) -> None:
        open_dataset(str(home / name), image_size=16, cache_dir=home / "cached")

    def bitten(home: Path) -> None:
        before = set(home.parent.iterdir())
        try:
            store = ZipStore(home / "data.zip")
            for name in store.names()[:300]:
                with suppress(DataError):
                    store.read(name)
            opened(home, "data.zip")
        finally:
            strangers = {path.name for path in home.iterdir()} - {"data.zip", "cached"}
            if strangers or set(home.parent.iterdir()) != before:
                raise Defect(f"files were written outside the cache: {strangers}")

    def folders(home: Path) -> None:
        _make_folders(home / "odd", (home / "tree.txt").read_bytes().split(b"\n"), home / "pictures" / "drawn.png")
        opened(home, "odd")

    tree = kit / "tree"
    yield Reader("zip", kit / "zip", "data.zip", lambda home: opened(home, "data.zip"))
    yield Reader("zip that bites", kit / "zip", "data.zip", bitten, zips.biting, share=0.4)
    for file in ("val/val_annotations.txt", "words.txt"):
        name = "annotations" if "val" in file else "words"
        yield Reader(name, tree, f"tiny/{file}", lambda home: opened(home, "tiny"), LINES)
    yield Reader("names of an archive", kit / "texts", "tree.txt", _read_names, LINES)
    yield Reader("odd folders", kit / "texts", "tree.txt", folders, LINES, share=0.5)
    for file in sorted((kit / "cache").iterdir()):
        damage = {".npy": either(by_bytes, by_array_header), ".json": JSON}.get(file.suffix, by_bytes)
        yield Reader(f"cache {file.name}", kit / "cache", file.name, lambda home: read_cache(home, name="x"), damage)


class Listed:
    """A store of names alone."""

    def __init__(self, names: list[str]) -> None:
        self._names = sorted(names)

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        return b"val_0.JPEG\ta\n" if name.endswith(".txt") else b""

    def state(self, name: str) -> str:
        return ""


def _read_names(home: Path) -> None:
    from tinyres.data.layout import read_layout

    lines = (home / "tree.txt").read_bytes().split(b"\n")
    layout = read_layout(Listed(sorted({os.fsdecode(line) for line in lines if line})), place="here")
    used = [name for name, _ in (*layout.train, *layout.val)]
    if len(used) != len(set(used)):
        raise Defect("a picture is counted twice")


def _make_folders(root: Path, names: list[bytes], picture: Path) -> None:
    """A picture, or a folder, under each name that the system takes and that stays inside."""
    content = picture.read_bytes()
    for name in names:
        path = Path(os.path.normpath(root / os.fsdecode(name).lstrip("/")))
        if root not in path.parents:
            continue
        with suppress(OSError, ValueError):
            (path if name.endswith(b"/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith(b"/"):
                path.write_bytes(content)


def _texts(kit: Path) -> Iterator[Reader]:
    from tinyres.bench.gate import parse_condition
    from tinyres.export.options import parse_batches, parse_sizes
    from tinyres.recipes import DEMO, override
    from tinyres.units import parse_duration

    home = kit / "texts"

    def each_line(file: str, *parsers: Callable[[str], object]) -> Callable[[Path], None]:
        def read(home: Path) -> None:
            refusals = []
            for line in re.split(r"[\r\n]+", os.fsdecode((home / file).read_bytes())):
                for parse in parsers:
                    try:
                        parse(line)
                    except TinyresError as exc:
                        refusals.append(exc)
            for refusal in refusals:
                if len(str(refusal).splitlines()) != 1:
                    raise refusal

        return read

    def overridden(home: Path) -> None:
        override(DEMO, [line for line in os.fsdecode((home / "assignments.txt").read_bytes()).split("\n") if line])

    def predicted(home: Path) -> None:
        from tinyres.cli.asked import answers, asked_pictures

        names = os.fsencode(home) + b"/"
        path = home / "names.txt"
        path.write_bytes(b"\n".join(names + line for line in path.read_bytes().split(b"\n") if line))
        for answer in answers(_classifier(kit / "export" / ONNX), asked_pictures([], str(path))):
            answer.record()

    yield Reader("recipe's fields", home, "assignments.txt", overridden, LINES)
    conditions = each_line("conditions.txt", parse_condition)
    yield Reader("conditions of a bench", home, "conditions.txt", conditions, LINES)
    lengths = each_line("lengths.txt", parse_duration, parse_batches, parse_sizes)
    yield Reader("lengths and sizes", home, "lengths.txt", lengths, LINES)
    yield Reader("names to predict", home, "names.txt", predicted, LINES, share=0.5)


@cache
def _classifier(path: Path) -> object:
    from tinyres.runtime import Classifier

    return Classifier(path, threads=1)
