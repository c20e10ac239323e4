"""What `from tinyres import Classifier` costs: `python -m tinyres.bench.studies.classifier ARTIFACT`, a proven .onnx.

Beyond the backend's own import, in fresh processes; and beyond the bare call of the session that it holds, by turns,
for one picture that is decoded already. Prints one JSON text.
"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
from pathlib import Path

from tinyres import environment, records
from tinyres.bench.studies.peers import COMPARED, noise, paired, session_call
from tinyres.runtime.backends import BACKENDS
from tinyres.runtime.classifier import Classifier
from tinyres.runtime.runner import Runner

PROCESSES = 15
IMPORTS = {
    "onnxruntime-cpu": ("onnxruntime, numpy, PIL.Image", "tinyres.runtime.onnxruntime_cpu"),
    "openvino": ("openvino, numpy, PIL.Image", "tinyres.runtime.openvino_cpu"),
}
IMPORT = """
import time
import {theirs}
began = time.perf_counter()
from tinyres import Classifier
import {ours}
print(time.perf_counter() - began)
"""


def main() -> None:
    """Measure and print."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tinyres.bench.studies.classifier ARTIFACT")
    path = Path(sys.argv[1])
    answer = {
        "command": f"python -m tinyres.bench.studies.classifier {path.name}",
        "threads": environment.usable_cores(),
        "import": {backend: import_seconds(backend) for backend in COMPARED},
        "call": {backend: call(path, backend) for backend in COMPARED},
        "environment": environment.capture(),
    }
    print(records.to_json(answer))


def import_seconds(backend: str) -> dict[str, object]:
    """Beyond what the backend, NumPy and Pillow take themselves."""
    theirs, ours = IMPORTS[backend]
    program = IMPORT.format(theirs=theirs, ours=ours)
    command = [sys.executable, "-c", program]
    samples = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(PROCESSES)]
    return {"median_s": round(statistics.median(samples), 4), "samples_s": [round(sample, 4) for sample in samples]}


def call(path: Path, backend: str) -> dict[str, object]:
    """One picture, a uint8 array of the model's size: with softmax, sorting and names, against the logits alone."""
    opened = importlib.import_module(BACKENDS[backend].module).open_backend(path, threads=environment.usable_cores())
    with Classifier(Runner(opened)) as classify:
        images = noise(path, 8)
        ours, theirs, share = paired(lambda image: classify(image[0]), session_call(backend, opened), images)
    return {"classifier_ms": ours, "bare_ms": theirs, "share": share}


if __name__ == "__main__":
    main()
