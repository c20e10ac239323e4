"""Serve an exported repository with NVIDIA's own Triton server and ask it over both protocols: `make test-triton`.

The server is the one in the package nvidia-pytriton, on the CPU, with ONNX Runtime behind its Python backend. It needs
a package index and a minute, so it is no part of `make test`. Not tried here: the server's own backends, and a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from environments import environment, run
from install import say
from typing_extensions import Self

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURES = [str(REPOSITORY / "docs" / "pictures" / name) for name in ("coffee.jpg", "cat.jpg", "rocket.jpg")]
SERVER = "nvidia-pytriton==0.7.0"
CLIENTS, REQUESTS = 8, 40


def main() -> None:
    """Run all steps; the first that fails ends it."""
    with tempfile.TemporaryDirectory(prefix="tinyres-triton-") as name:
        folder = Path(name)
        os.environ["TINYRES_CACHE"] = str(folder / "cache")
        say("install the server")
        bare = environment(folder / "server", sys.executable, SERVER, "onnxruntime", constraints=None)
        say("export nano and its repository")
        tinyres = Path(sys.executable).with_name("tinyres")
        words = ("export", "nano", "--format", "triton", "--quiet", "--proof-images", "24", "--out", folder)
        run(tinyres, *words, cwd=folder)
        with Server(folder, bare) as server:
            say("ask it over HTTP and gRPC, beside `tinyres predict`")
            compare_labels(folder, server, tinyres)
            say("ask it with curl")
            ask_with_curl(folder, server)
            say("its logits are those of the golden vectors")
            compare_logits(folder, server)
            say(f"{CLIENTS} clients at once: what the server made of {CLIENTS * REQUESTS} requests")
            batches = ask_at_once(server)
            print("   batches run, by size:", ", ".join(f"{size}: {count}" for size, count in sorted(batches.items())))
            if max(batches) == 1:
                raise SystemExit("the server batched nothing")
    say("all passed")


class Server:
    """The server's process, ready to be asked."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        packages = next((binaries.parent / "lib").glob("python*/site-packages"))
        home = packages / "pytriton" / "tritonserver"
        backends = Path(shutil.copytree(home / "backends", folder / "backends"))
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        Path(stub).chmod(0o755)
        shutil.copytree(REPOSITORY / "tests" / "release" / "triton_backend", backends / "onnxruntime")
        self.http, self.grpc, metrics = free_ports(3)
        self.log = folder / "server.log"
        ports = ("--http-port", self.http, "--grpc-port", self.grpc, "--metrics-port", metrics)
        places = ("--model-repository", folder / "triton" / "models", "--backend-directory", backends)
        self.words = [home / "bin" / "tritonserver", *places, *ports, "--disable-auto-complete-config"]
        libraries = {"LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"), "PYTHONPATH": str(packages)}
        self.environment = os.environ | libraries | {"PATH": f"{binaries}:{os.environ['PATH']}"}

    def __enter__(self) -> Self:
        words = [str(word) for word in self.words]
        self.process = subprocess.Popen(
            words, env=self.environment, stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True
        )
        until = time.monotonic() + 60
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise SystemExit(f"the server did not become ready:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)
        return self

    def is_ready(self) -> bool:
        """Whether every model is loaded and warmed up."""
        try:
            return bool(self.get("v2/health/ready").status == 200)
        except OSError:
            return False

    def get(self, path: str) -> Any:
        """The open answer to a GET."""
        return urllib.request.urlopen(f"http://localhost:{self.http}/{path}", timeout=10)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def compare_labels(folder: Path, server: Server, tinyres: Path) -> None:
    """The generated client prints what `tinyres predict` prints."""
    words = [tinyres, "predict", *PICTURES, "--quiet", "--model", folder / "fp32.onnx"]
    wanted = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for port, flag in ((server.http, []), (server.grpc, ["--grpc"])):
        words = [sys.executable, folder / "triton" / "client.py", *PICTURES, "--host", f"localhost:{port}", *flag]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        if said != wanted:
            raise SystemExit(f"the client says\n{said}instead of\n{wanted}")
        words = [sys.executable, folder / "triton" / "client.py", "--verify", "--host", f"localhost:{port}", *flag]
        print("  ", subprocess.run(words, capture_output=True, text=True, check=True).stdout, end="")
    print(wanted, end="")


def ask_with_curl(folder: Path, server: Server) -> None:
    """The generated curl.sh gets an answer; its resize is ImageMagick's."""
    magick = subprocess.run(["sh", "-c", "convert -version"], capture_output=True, text=True).stdout
    if "ImageMagick" not in magick:
        print("   SKIPPED: there is no ImageMagick here")
        return
    words = ["sh", folder / "triton" / "curl.sh", PICTURES[0], f"localhost:{server.http}"]
    answer = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    best = answer["outputs"][0]["data"][0]
    print(f"   {best}")
    if not best.endswith(":espresso"):
        raise SystemExit("curl.sh gets another label")


def compare_logits(folder: Path, server: Server) -> None:
    """All golden pictures in one request, against what the artifact answered at its proof."""
    import tritonclient.grpc as triton

    with np.load(folder / "fp32.onnx.golden.npz") as vectors:
        pixels, recorded = vectors["pixels"], vectors["artifact"]
    image = triton.InferInput("image", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels)
    with triton.InferenceServerClient(f"localhost:{server.grpc}") as client:
        logits = client.infer("nano", [image], outputs=[triton.InferRequestedOutput("logits")]).as_numpy("logits")
        error = float(np.abs(logits - recorded).max())
        print(f"   largest difference over {logits.shape[0]} pictures: {error:.1e}")
        if logits.shape != recorded.shape or not error < 1e-4:
            raise SystemExit("the server's logits are not the artifact's")
        many = np.zeros((257, *pixels.shape[1:]), np.uint8)
        image = triton.InferInput("image", list(many.shape), "UINT8")
        image.set_data_from_numpy(many)
        try:
            client.infer("nano", [image])
        except triton.InferenceServerException as exc:
            print(f"   257 pictures at once: {exc.message()[:100]}")
        else:
            raise SystemExit("the server took a batch above max_batch_size")


def ask_at_once(server: Server) -> dict[int, int]:
    """How many batches of each size the server ran while several clients asked for one picture at a time."""
    import tritonclient.grpc as triton

    def stats() -> dict[int, int]:
        (model,) = json.load(server.get("v2/models/nano/stats"))["model_stats"]
        return {batch["batch_size"]: batch["compute_infer"]["count"] for batch in model["batch_stats"]}

    def ask(_: int) -> None:
        with triton.InferenceServerClient(f"localhost:{server.grpc}") as client:
            image = triton.InferInput("image", [1, 64, 64, 3], "UINT8")
            image.set_data_from_numpy(np.zeros((1, 64, 64, 3), np.uint8))
            for _ in range(REQUESTS):
                client.infer("nano", [image])

    before = stats()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(CLIENTS)))
    after = stats()
    counted = {size: after[size] - before.get(size, 0) for size in after}
    return {size: count for size, count in counted.items() if count}


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("localhost", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


if __name__ == "__main__":
    main()
