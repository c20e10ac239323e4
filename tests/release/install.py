"""Build wheel and sdist, and use them in bare environments from another folder: `make test-install`.

The same source must give the same wheel, from the sdist too. A serving machine (base and `cpu` alone) must predict and
verify without PyTorch on every Python that is here; Python 3.10 must run, export and prove; every other extra must do
what it is for (extras.py). It needs a package index and minutes, so it is no part of `make test`. What is skipped is
said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from environments import NoWheelError, ended, environment, install, run
from extras import try_extras
from wheels import build, build_all, copy_source, differences, unpack

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MOST_BYTES = 8 * 10**9
"""Of everything at once, training's environment included."""

MAKE_A_RUN = """
from pathlib import Path
from PIL import Image
from tinyres.data import shapes
for split, each in (("train", 30), ("val", 10)):
    for index in range(2 * each):
        label = index % 2
        home = Path("photos") / split / shapes.CLASSES[label]
        home.mkdir(parents=True, exist_ok=True)
        picture = shapes.render(split, 10 * (index // 2) + label)
        Image.fromarray(picture).save(home / f"{index}.png")
"""
SMALL = ["--set", "blocks=1,1", "--set", "widths=8,16", "--set", "epochs=2", "--set", "batch_size=16"]


def main() -> None:
    """Run all steps; the first that fails ends it."""
    with tempfile.TemporaryDirectory(prefix="tinyres-install-") as name:
        folder = Path(name)
        wheel, sdist = build_and_compare(folder)

        say("make a run and its artifact here")
        os.environ["TINYRES_CACHE"] = str(folder / "cache")
        os.environ["TMPDIR"] = str(folder / "tmp")  # so that what pip downloads is counted, and goes with the rest
        (folder / "tmp").mkdir()
        train_and_export(folder, Path(sys.executable), Path(sys.executable).with_name("tinyres"))

        for version in PYTHONS:
            serve_on(version, folder, wheel, sdist)

        python = find_python("3.10")
        if python is None:
            say("SKIPPED: there is no Python 3.10 here; training, export and proof were not tried on it")
        else:
            train_on_oldest(folder, python, wheel)

        say("the other extras, each in an environment of its own")
        try_extras(folder, wheel)
    say("all passed")


def build_and_compare(folder: Path) -> tuple[Path, Path]:
    """The wheel and the sdist, once they are known to be the same whichever way they are made."""
    say("build wheel and sdist")
    built = build_all(folder)
    if not 4 * 2**20 < built.wheel.stat().st_size < 6 * 2**20:  # the weights of nano, and little else
        raise SystemExit(f"{built.wheel.name} has {built.wheel.stat().st_size:,} bytes; valid: 4 to 6 MiB")
    say("the wheel of the sdist, and one of another copy of the source")
    from_sdist = build("wheel", unpack(built.sdist, folder / "unpacked"), folder / "from-sdist")
    if unlike := differences(built.wheel, from_sdist):
        raise SystemExit(f"the wheel of the sdist is another: {', '.join(unlike[:10])}")
    again = build("wheel", copy_source(folder / "elsewhere" / "source"), folder / "again")
    if again.read_bytes() != built.wheel.read_bytes():
        raise SystemExit(f"built again, the wheel is another: {differences(built.wheel, again)[:10] or 'its order'}")
    return built.wheel, built.sdist


def serve_on(version: str, folder: Path, wheel: Path, sdist: Path) -> None:
    """Use base and cpu alone on a Python, if it is here and they have wheels for it; on our own from the sdist."""
    python = find_python(version)
    if python is None:
        say(f"SKIPPED: there is no Python {version} here")
        return
    own = python == sys.executable
    source = "sdist" if own else "wheel"
    say(f"Python {version}, {source} with base and cpu alone: predict, verify, info and doctor, without PyTorch")
    wanted = f"{sdist if own else wheel}[cpu]"
    try:
        with environment_of(folder / f"bare-{version}", python, wanted, wheels_alone=not own) as bare:
            serve(folder, bare)
            absent = [module for module in ("torch", "onnx", "safetensors", "matplotlib") if can_import(bare, module)]
            if absent:
                raise SystemExit(f"the bare environment holds {', '.join(absent)}")
            refused = subprocess.run([bare / "tinyres", "export", "mine"], cwd=folder, capture_output=True, text=True)
            if refused.returncode != 4 or "pip install 'tinyres[train]'" not in refused.stderr:
                raise SystemExit(f"export without its extra ended with {refused.returncode}: {refused.stderr}")
    except NoWheelError as exc:
        say(f"SKIPPED: Python {version}: {exc}")


def train_on_oldest(folder: Path, python: str, wheel: Path) -> None:
    """Training, export and TensorBoard on the oldest Python, each with the extra for it and no more.

    What needs an extra that is not here yet must name it. `all-cpu` is `train` and `cpu` together.
    """
    say("Python 3.10 with train alone: training; with all-cpu: export and proof; with tensorboard: its log")
    home = folder / "old-runs"
    home.mkdir()
    board = ("train", "--quiet", "--data", "photos", "--recipe", "demo", "--tensorboard", *SMALL)
    with environment_of(folder / "old", python, f"{wheel}[train]") as old:
        train(home, old / "python", old / "tinyres")
        ended(4, old / "tinyres", "export", "mine", cwd=home, hint="tinyres[cpu]")
        ended(4, old / "tinyres", *board, cwd=home, hint="tinyres[tensorboard]")
        install(old, f"{wheel}[all-cpu]")
        run(old / "tinyres", "export", "mine", "--quiet", "--batch", "1:4:9", cwd=home)
        run(old / "tinyres", "export", "nano", "--quiet", "--proof-images", "32", "--batch", "1:4:9", cwd=folder)
        install(old, f"{wheel}[tensorboard]")
        run(old / "tinyres", *board, "--name", "watched", cwd=home)
        if not list((home / "runs" / "watched" / "tensorboard").glob("events.*")):
            raise SystemExit("the extra tensorboard wrote no log")


def train_and_export(folder: Path, python: Path, tinyres: Path) -> None:
    """A tiny run with an artifact, in `folder`."""
    train(folder, python, tinyres)
    run(tinyres, "export", "mine", "--quiet", "--batch", "1:4:9", cwd=folder)


def train(folder: Path, python: Path, tinyres: Path) -> None:
    """A tiny run, in `folder`."""
    run(python, "-c", MAKE_A_RUN, cwd=folder)
    run(tinyres, "train", "--quiet", "--data", "photos", "--recipe", "demo", "--name", "mine", *SMALL, cwd=folder)


def serve(folder: Path, binaries: Path) -> None:
    """Predict and verify with what is installed there."""
    artifact = "runs/mine/export/fp32.onnx"
    picture = sorted((folder / "photos" / "val" / "ring").iterdir())[0]
    run(binaries / "tinyres", "predict", picture.relative_to(folder), "--model", artifact, cwd=folder)
    run(binaries / "tinyres", "verify", artifact, cwd=folder, quiet=True)
    run(binaries / "python", "-m", "tinyres", "info", artifact, cwd=folder, quiet=True)
    run(binaries / "tinyres", "doctor", cwd=folder, quiet=True)
    for example in ("browser", "python"):
        run(binaries / "tinyres", "export", artifact, "--example", example, "--quiet", cwd=folder, quiet=True)
    run(binaries / "python", f"{artifact}.py", "--verify", cwd=folder)
    if not (folder / "runs" / "mine" / "export" / "browser" / "index.html").is_file():
        raise SystemExit("the installed package has no page for browsers")


@contextmanager
def environment_of(home: Path, python: str | Path, *requirements: str, wheels_alone: bool = False) -> Iterator[Path]:
    """The programs of an environment that is removed afterwards. Errors: NoWheelError, if wheels alone may be used."""
    started = time.monotonic()
    try:
        binaries = environment(home, python, *requirements, wheels_alone=wheels_alone)
        taken = size_of(home.parent)
        print(f"   installed in {time.monotonic() - started:.0f} s; {taken / 1e9:.1f} GB in all", flush=True)
        if taken > MOST_BYTES:
            raise SystemExit(f"the environments take {taken:,} bytes; valid: up to {MOST_BYTES:,}")
        yield binaries
    finally:
        shutil.rmtree(home, ignore_errors=True)


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def can_import(binaries: Path, module: str) -> bool:
    """Whether a module imports there."""
    return subprocess.run([binaries / "python", "-c", f"import {module}"], capture_output=True).returncode == 0


def find_python(version: str) -> str | None:
    """A working interpreter of that version: this one, on the path, or pyenv's; a shim may stand there and not work."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))]
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        candidates.insert(0, sys.executable)
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
            return candidate
    return None


def say(text: str) -> None:
    """A step."""
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    main()
