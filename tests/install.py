"""Build wheel and sdist, and use them in bare environments from another folder: `make test-install`.

A serving machine (base and `cpu` alone) must predict and verify without PyTorch; Python 3.10 must run, export and
prove. It needs a package index and minutes, so it is no part of `make test`. What is skipped is said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CONSTRAINTS = REPOSITORY / "constraints.txt"

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
        say("build wheel and sdist")
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", REPOSITORY, cwd=folder, quiet=True)
        (wheel,) = (folder / "dist").glob("*.whl")
        (sdist,) = (folder / "dist").glob("*.tar.gz")
        if not 4 * 2**20 < wheel.stat().st_size < 6 * 2**20:  # the weights of nano, and little else
            raise SystemExit(f"{wheel.name} has {wheel.stat().st_size:,} bytes; valid: 4 to 6 MiB")

        say("make a run and its artifact here")
        os.environ["TINYRES_CACHE"] = str(folder / "cache")
        tinyres = Path(sys.executable).with_name("tinyres")
        train_and_export(folder, Path(sys.executable), tinyres)

        say("wheel with base and cpu alone: predict and verify, without PyTorch")
        bare = environment(folder / "bare", sys.executable, f"{wheel}[cpu]")
        serve(folder, bare)
        absent = [module for module in ("torch", "onnx", "safetensors", "matplotlib") if can_import(bare, module)]
        if absent:
            raise SystemExit(f"the bare environment holds {', '.join(absent)}")
        refused = subprocess.run([bare / "tinyres", "export", "mine"], cwd=folder, capture_output=True, text=True)
        if refused.returncode != 4 or "pip install 'tinyres[train]'" not in refused.stderr:
            raise SystemExit(f"export without its extra ended with {refused.returncode}: {refused.stderr}")

        say("sdist alone: the command starts")
        run(environment(folder / "sdist", sys.executable, str(sdist)) / "tinyres", "--version", cwd=folder)

        python = find_python("3.10")
        if python is None:
            say("SKIPPED: there is no Python 3.10 here; its runtime and export path were not tried")
        else:
            say("Python 3.10: the runtime, then training, export and proof")
            old = environment(folder / "old", python, f"{wheel}[cpu]")
            serve(folder, old)
            run(old / "python", "-m", "pip", "install", "-q", "-c", CONSTRAINTS, f"{wheel}[all-cpu]", cwd=folder)
            (folder / "old-runs").mkdir()
            train_and_export(folder / "old-runs", old / "python", old / "tinyres")
            run(old / "tinyres", "export", "nano", "--quiet", "--proof-images", "32", "--batch", "1:4:9", cwd=folder)
    say("all passed")


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
    run(binaries / "tinyres", "verify", artifact, cwd=folder)
    run(binaries / "python", "-m", "tinyres", "info", artifact, cwd=folder)
    for example in ("browser", "python"):
        run(binaries / "tinyres", "export", artifact, "--example", example, "--quiet", cwd=folder, quiet=True)
    run(binaries / "python", f"{artifact}.py", "--verify", cwd=folder)
    if not (folder / "runs" / "mine" / "export" / "browser" / "index.html").is_file():
        raise SystemExit("the installed package has no page for browsers")


def environment(home: Path, python: str | Path, *requirements: str, constraints: Path | None = CONSTRAINTS) -> Path:
    """A new virtual environment with what is required; returns its folder of programs."""
    run(python, "-m", "venv", home, cwd=home.parent)
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    install = ("-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements)
    bounds = ("-c", constraints) if constraints else ()
    run(binaries / "python", *install, *bounds, cwd=home.parent, quiet=True)
    return binaries


def can_import(binaries: Path, module: str) -> bool:
    """Whether a module imports there."""
    return subprocess.run([binaries / "python", "-c", f"import {module}"], capture_output=True).returncode == 0


def find_python(version: str) -> str | None:
    """A working interpreter of that version; a version manager's shim may stand there and not work."""
    name = shutil.which(f"python{version}")
    candidates = [name, *sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
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
