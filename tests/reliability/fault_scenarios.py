"""The jobs in which tinyres writes, for `faults.py`: what each needs, does, must never lose and must end with."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawn_results import ALL
from faulty import replace
from seed_network import seed_network
from tiny import TINY, write_pictures
from typer.testing import CliRunner

from tinyres import files
from tinyres.bench import results
from tinyres.bench.reports.write import write_reports
from tinyres.checkpoint import load_state, load_weights
from tinyres.cli import app
from tinyres.cli.command import run_guarded
from tinyres.console import Console
from tinyres.data import cache, download
from tinyres.data.dataset import read_cache
from tinyres.errors import ProofError
from tinyres.export import golden, triton
from tinyres.export.certificate import read_certificate
from tinyres.files import atomic_path
from tinyres.progress import Silent
from tinyres.runs import Epoch, list_runs
from tinyres.training import launch, watch
from tinyres.training import train as training

SMALLEST = dataclasses.replace(TINY, name="small", widths=(4, 8), epochs=2, batch_size=8)
OLD, NEW = "old\n" * 3000, "new\n" * 3000
ARCHIVE = np.random.default_rng(0).bytes(60_000)
ZIP = "set.zip"


class LostError(Exception):
    """An invariant that does not hold."""


@dataclass(frozen=True)
class Ended:
    """How a job ended, as a user sees it."""

    code: int
    said: str
    """On stderr."""


@dataclass(frozen=True)
class Scenario:
    """One job that writes."""

    name: str
    prepare: Callable[[Path, Path], None]
    """Given the kit and the empty home; makes what the job finds there."""
    job: Callable[[Path, Path], Ended]
    check: Callable[[Path], None]
    """What holds at any time, whatever has failed. Raises `LostError`, or what a reader of a torn file raises."""
    result: Callable[[Path], object]
    """What a finished job has made: equal at every run."""
    goes_on: tuple[str, ...] = ()
    """Endings of what an unfinished job leaves on purpose, to go on from."""


def scenarios() -> dict[str, Scenario]:
    """All of them."""
    found = (
        Scenario("files", _prepare_files, _write_files, _check_files, _result_of_files),
        Scenario("train", place_cache, train, check_runs, result_of_training),
        Scenario("cache", _nothing, build_cache, _check_cache, result_of_cache, (".partial",)),
        Scenario("export", prepare_export, export, check_export, _result_of_export),
        Scenario("triton", _prepare_triton, _export_triton, _check_triton, _result_of_triton),
        Scenario("bench", _prepare_bench, _write_reports, _check_bench, _result_of_bench),
        Scenario("import", _nothing, _import, check_runs, _result_of_import),
        Scenario("download", _nothing, _download, _check_download, _result_of_download, (".part",)),
    )
    return {scenario.name: scenario for scenario in found}


def make_kit(kit: Path) -> None:
    """What all scenarios take from: pictures, two runs of other weights, an artifact of the first, seed weights."""
    write_pictures(kit / "data" / "train", classes=2, each=8)
    write_pictures(kit / "data" / "val", classes=2, each=4, split="val")
    for split in ("train", "val"):
        (kit / "data" / split / "ring" / "broken.png").write_text("no picture")
    for seed in (0, 1):
        started = launch.new_run(
            str(kit / "data"),
            SMALLEST,
            runs=kit / f"seed-{seed}",
            name="run",
            seed=seed,
            cache_dir=kit / "cache",
            progress=Silent(),
        )
        training.train(started.run, started.config, started.dataset, progress=Silent())
    model = seed_network(classes=4, blocks=(1, 1, 1, 1), widths=(2, 3, 4, 5))
    torch.save(model.state_dict(), kit / "seed.pth")
    (kit / "archive").write_bytes(ARCHIVE)


def _command(home: Path, *words: object) -> Ended:
    os.environ["TINYRES_CACHE"] = str(home / "cache")
    ended = CliRunner().invoke(app, [*map(str, words), "--quiet"])
    return Ended(ended.exit_code, ended.stderr)


def _guarded(work: Callable[[], object]) -> Ended:
    from contextlib import redirect_stderr

    with redirect_stderr(io.StringIO()) as said:
        code = run_guarded(Console(quiet=True), lambda: bool(work()) and 0)
    return Ended(code, said.getvalue())


def _nothing(kit: Path, home: Path) -> None:
    pass


def _sha256(*paths: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


# Atomic files, one of each kind of writer


def _prepare_files(kit: Path, home: Path) -> None:
    (home / "text.txt").write_text(OLD)
    np.save(home / "array.npy", np.zeros(5000))
    (home / "tree" / "inner").mkdir(parents=True)
    (home / "tree" / "inner" / "file").touch()


def _write_files(kit: Path, home: Path) -> Ended:
    def work() -> None:
        from tinyres.drawing import draw_curves

        files.write_text(home / "text.txt", NEW)
        files.write_array(home / "array.npy", np.ones(5000))
        draw_curves(home / "new" / "curves.png", {"a": [Epoch(1, 1, True, 1.0, 0.5, 1.0, 0.5, 9, 0.1, 1.0, 9.0)]})
        files.remove(home / "tree")

    return _guarded(work)


def _check_files(home: Path) -> None:
    if (home / "text.txt").read_text() not in (OLD, NEW):
        raise LostError("text.txt is neither the old nor the new one")
    if np.load(home / "array.npy").shape != (5000,):
        raise LostError("array.npy is torn")
    _check_pictures(home)


def _check_pictures(home: Path) -> None:
    from PIL import Image

    for path in home.rglob("[!.]*.png"):
        with Image.open(path) as picture:
            picture.load()


def _result_of_files(home: Path) -> object:
    return [(home / "text.txt").read_text() == NEW, np.load(home / "array.npy").sum(), (home / "tree").exists()]


# A training, saved at every step, and gone on with if there is something to go on from


def train(kit: Path, home: Path) -> Ended:
    training.SAVE_EVERY_S = 0.0
    replace(watch, "draw_curves", _draw_a_dot)  # Matplotlib takes longer than all the rest; it has its place in `files`
    runs = home / "runs"
    begun = [run for run in list_runs(runs) if run.last.is_file()]
    if begun:
        return resume(home, begun[0].name)
    words = [f"--set={key}={value}" for key, value in (("blocks", "1,1"), ("widths", "4,8"), ("image_size", 16))]
    words += ["--set=epochs=2", "--set=batch_size=8", "--recipe=demo"]
    return _command(home, "train", "--data", kit / "data", *words, "--runs", runs)


def resume(home: Path, name: str) -> Ended:
    """Go on with that run."""
    return _command(home, "train", "--resume", name, "--runs", home / "runs")


def place_cache(kit: Path, home: Path) -> None:
    """The decoded data, whose building is a scenario of its own."""
    shutil.copytree(kit / "cache", home / "cache")


def _draw_a_dot(path: Path, histories: Any, **_: Any) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.new("RGB", (8, 8)).save(temporary)


def check_runs(home: Path) -> None:
    for path in home.glob("runs/*/[!.]*.json"):
        json.loads(path.read_bytes())
    for run in list_runs(home / "runs"):
        run.config()
        for path in (run.best, run.final):
            if path.is_file():
                load_weights(path).model()
        if run.last.is_file():
            load_state(run.last)
        if (run.path / "history.json").is_file():
            run.history()
    _check_pictures(home)


def result_of_training(home: Path) -> object:
    (run,) = (run for run in list_runs(home / "runs") if run.last.is_file())
    state = load_state(run.last)
    told = [(line.epoch, line.step, line.train_loss, line.val_loss, line.val_acc) for line in run.history()]
    optimizer = state["optimizer"]["state"]
    tensors = [state["model"], {str(key): value["momentum_buffer"] for key, value in optimizer.items()}]
    tensors += [load_weights(path).tensors for path in (run.best, run.final)]
    summary = json.loads((run.path / "summary.json").read_text())["last"]
    return [told, [_tensors_sha256(named) for named in tensors], run.state().state, summary]


def _tensors_sha256(tensors: Any) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


# The cache, in chunks small enough for a journal of several lines, with pictures that cannot be read


def build_cache(kit: Path, home: Path) -> Ended:
    cache.CHUNK = 5
    return _command(home, "data", "prepare", "--data", kit / "data", "--image-size", 16, "--cache", home / "cache")


def _check_cache(home: Path) -> None:
    for manifest in home.glob("cache/*/manifest.json"):
        if manifest.parent.suffix != ".partial":
            dataset = read_cache(manifest.parent, name="c")
            if min(images.max() for images in (*dataset.train.images, *dataset.val.images)) == 0:
                raise LostError("a picture of the cache is black")


def result_of_cache(home: Path) -> object:
    (folder,) = (path.parent for path in home.glob("cache/*/manifest.json"))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["seconds"]
    return [manifest, _sha256(*sorted(folder.glob("*.npy")))]


# An export where an artifact of older weights is


def prepare_export(kit: Path, home: Path) -> None:
    place_cache(kit, home)
    shutil.copytree(kit / "seed-0" / "run", home / "runs" / "run")
    if (ended := export(kit, home)).code:
        raise SystemExit(ended.said)
    shutil.copy(kit / "seed-1" / "run" / "best.safetensors", home / "runs" / "run" / "best.safetensors")


def export(kit: Path, home: Path) -> Ended:
    return _command(home, "export", "run", "--runs", home / "runs", "--batch", "1:2:3")


def check_export(home: Path) -> None:
    artifact = home / "runs" / "run" / "export" / "fp32.onnx"
    certificate = read_certificate(artifact)
    if golden.fingerprint(artifact) != certificate.golden_sha256:
        raise ProofError("the golden vectors belong to another file", hint="export again")
    json.loads(golden.json_path(artifact).read_text())


def _result_of_export(home: Path) -> object:
    check_export(home)
    artifact = home / "runs" / "run" / "export" / "fp32.onnx"
    return [_sha256(artifact, golden.golden_path(artifact)), read_certificate(artifact).grade]


# A repository for Triton around it, where an older one is


def _prepare_triton(kit: Path, home: Path) -> None:
    prepare_export(kit, home)
    for job in (_export_triton, export):
        if (ended := job(kit, home)).code:
            raise SystemExit(ended.said)


def _export_triton(kit: Path, home: Path) -> Ended:
    triton.ROUND_S = 0.001
    artifact = home / "runs" / "run" / "export" / "fp32.onnx"
    return _command(home, "export", artifact, "--format", "triton", "--runs", home / "runs")


def _check_triton(home: Path) -> None:
    model = home / "runs" / "run" / "export" / "triton" / "models" / "run"
    if not model.exists():  # no system call that Python has swaps two folders
        raise ProofError("there is no model", hint="export again")
    certificate = json.loads((model / "certificate.json").read_text())
    if _sha256(model / "1" / "model.onnx") != [certificate["artifact_sha256"]]:
        raise LostError("the model served is not that of its certificate")
    json.loads((model / "golden.json").read_text())
    if not (model / "config.pbtxt").read_text().endswith("}\n"):
        raise LostError("config.pbtxt is torn")


def _result_of_triton(home: Path) -> object:
    _check_triton(home)
    folder = home / "runs" / "run" / "export" / "triton"
    (model,) = (folder / "models").iterdir()
    scripts = [folder / name for name in ("client.py", "curl.sh", "serve.sh")]
    modes = [os.access(path, os.X_OK) for path in scripts]
    return [_sha256(*scripts, model / "1" / "model.onnx", model / "labels.txt", model / "golden.json"), modes]


# The reports of a bench, over older ones


def _prepare_bench(kit: Path, home: Path) -> None:
    write_reports(home / "bench", dataclasses.replace(ALL, rows=ALL.rows[:2]))


def _write_reports(kit: Path, home: Path) -> Ended:
    return _guarded(lambda: write_reports(home / "bench", ALL))


def _check_bench(home: Path) -> None:
    results.load(home / "bench" / "results.json")
    if not (home / "bench" / "report.html").read_text().rstrip().endswith("</html>"):
        raise LostError("report.html is torn")


def _result_of_bench(home: Path) -> object:
    return _sha256(*sorted((home / "bench").iterdir()))


# The seed's weights


def _import(kit: Path, home: Path) -> Ended:
    return _command(home, "import", kit / "seed.pth", "--runs", home / "runs")


def _result_of_import(home: Path) -> object:
    made = [run for run in list_runs(home / "runs") if (run.path / "state.json").is_file()]
    return [_tensors_sha256(load_weights(made[-1].best).tensors), made[-1].state().state]


# A download from a server of this process


def _download(kit: Path, home: Path) -> Ended:
    download.BLOCK = 16_384
    with serving(kit / "archive") as url:
        archive = download.Archive(url, len(ARCHIVE), hashlib.sha256(ARCHIVE).hexdigest())
        return _guarded(lambda: download.fetch(archive, home / "downloads" / ZIP, Silent()))


def _check_download(home: Path) -> None:
    path = home / "downloads" / ZIP
    if path.exists() and path.read_bytes() != ARCHIVE:
        raise LostError(f"{ZIP} is not the archive")


def _result_of_download(home: Path) -> object:
    return _sha256(home / "downloads" / ZIP)


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """An address of this machine that gives the file, from any byte on."""
    content = path.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(re.sub(r"\D", "", self.headers.get("Range", "0")))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # who was to read it gave up
                self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/{ZIP}"
        finally:
            server.shutdown()
            thread.join()
