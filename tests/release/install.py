"""Build wheel and sdist, and use them in bare environments from another folder: `make test-install`.

The same source must give the same wheel, from the sdist too. A serving machine (base and `cpu` alone) must predict and
verify without PyTorch on every Python that is here; Python 3.10 must run, export and prove. It needs a package index
and minutes, so it is no part of `make test`. What is skipped is said.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wheels import build, build_all, copy_source, differences, unpack

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NO_WHEEL = re.compile("No matching distribution|no usable wheels|no wheels with")
"""What pip and uv say of a package that has none for a Python."""
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
            say("Python 3.10: training, export and proof")
            with environment_of(folder / "old", python, f"{wheel}[all-cpu]") as old:
                (folder / "old-runs").mkdir()
                train_and_export(folder / "old-runs", old / "python", old / "tinyres")
                exported = ("export", "nano", "--quiet", "--proof-images", "32", "--batch", "1:4:9")
                run(old / "tinyres", *exported, cwd=folder)
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


def train_and_export(folder: Path, python: Path, tinyres: Path) -> None:
    """A tiny run with an artifact, in `folder`."""
    run(python, "-c", MAKE_A_RUN, cwd=folder)
    run(tinyres, "train", "--quiet", "--data", "photos", "--recipe", "demo", "--name", "mine", *SMALL, cwd=folder)
    run(tinyres, "export", "mine", "--quiet", "--batch", "1:4:9", cwd=folder)


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


class NoWheelError(Exception):
    """A package has no release for this Python that installs without a compiler."""


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


def environment(
    home: Path,
    python: str | Path,
    *requirements: str,
    constraints: Path | None = CONSTRAINTS,
    wheels_alone: bool = False,
) -> Path:
    """A new virtual environment with what is required; returns its folder of programs. Errors: NoWheelError."""
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", python, home, cwd=home.parent)
        install: tuple[object, ...] = (uv, "pip", "install", "--quiet", "--no-cache", "--python", binaries / "python")
    else:
        run(python, "-m", "venv", home, cwd=home.parent)
        install = (
            binaries / "python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--no-compile",
        )
    bounds = ("-c", constraints) if constraints else ()
    alone = ("--only-binary", ":all:") if wheels_alone else ()
    words = [str(word) for word in (*install, *requirements, *bounds, *alone)]
    ended = subprocess.run(words, cwd=home.parent, capture_output=True, encoding="utf-8", errors="replace")
    if ended.returncode:
        said = ended.stderr.strip()
        reasons = [line.strip() for line in said.splitlines() if NO_WHEEL.search(line)]
        if wheels_alone and reasons:
            raise NoWheelError(reasons[0])
        raise SystemExit(f"{' '.join(words)[:200]} ended with {ended.returncode}:\n{said}")
    return binaries


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


def run(*words: object, cwd: Path, quiet: bool = False) -> None:
    """Run a program; its failure is ours."""
    ended = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE if quiet else None,
        text=True,
    )
    if ended.returncode:
        raise SystemExit(f"{' '.join(map(str, words))[:200]} ended with {ended.returncode}:\n{ended.stderr}")


def say(text: str) -> None:
    """A step."""
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    main()
