"""`--format triton`: a model repository around a proven file, with a client for it and the commands that serve it.

triton/models/<name>/  config.pbtxt  labels.txt  certificate.json  golden.json  1/model.onnx (or model.plan)
triton/client.py  curl.sh  serve.sh  build_plan.sh

The ONNX file is the usual choice: a plan fits one version of TensorRT, and the server's container has its own.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyres.errors import UsageError
from tinyres.export.artifact import staging
from tinyres.export.certificate import certificate_path, read_certificate
from tinyres.export.golden import proven_json
from tinyres.export.template import fill_template
from tinyres.files import storage_errors, write_bytes, write_text
from tinyres.runtime.backends import open_runner

if TYPE_CHECKING:
    from tinyres.export.certificate import Certificate
    from tinyres.progress import Progress
    from tinyres.runtime.runner import Runner
    from tinyres.spec import ModelSpec

SERVER = "nvcr.io/nvidia/tritonserver:25.08-py3"
"""Any release whose ONNX Runtime reads opset 18 and IR 8 serves the file; this one has 1.23."""
QUEUE_DELAY_US = 500
"""A request waits so long for others to share its batch: less than a batch takes, so that it costs little alone."""
GOOD = 0.95
"""Batch sizes within this share of the best throughput are preferred."""
ROUNDS, ROUND_S = 3, 0.1


@dataclass(frozen=True, slots=True)
class Throughput:
    """How many pictures a second each batch size gives, and where that was measured."""

    images_per_second: dict[int, float]
    where: str

    @property
    def preferred(self) -> tuple[int, ...]:
        """The batch sizes within `GOOD` of the best: to wait for a larger one hardly pays."""
        best = max(self.images_per_second.values())
        return tuple(size for size, speed in self.images_per_second.items() if speed >= GOOD * best)


@dataclass(frozen=True, slots=True)
class Repository:
    """What was written."""

    folder: Path
    model: str
    throughput: Throughput
    certificate: Certificate
    """Of the file that is served."""

    def __repr__(self) -> str:
        served = f"{self.certificate.artifact}, proven ({self.certificate.grade})"
        return f"Repository({str(self.folder)!r}: serves {self.model!r} from {served})"


def export_triton(artifact: Path, folder: Path, *, progress: Progress) -> Repository:
    """Write a proven ONNX file or engine into the repository in `folder`, under the name of its run.

    Other models there are left alone. Errors: ProofError for a file without its proof; UsageError for an engine that
    Triton does not load, or where another's model has the name; ArtifactError, BackendUnavailable, StorageError.
    """
    certificate = read_certificate(artifact)
    passport = certificate.passport
    if passport is None and certificate.calibration is not None and not is_for_cpu(certificate):
        raise UsageError(
            f"{artifact.name} is laid out for {certificate.calibration.asked.target}, and Triton would serve it with"
            " ONNX Runtime",
            hint="--target cpu, or build an engine of it with --format trt and serve that",
        )
    if passport is not None and passport.library != "tensorrt":
        raise UsageError(f"Triton loads engines of tensorrt, not of {passport.library}", hint="name the ONNX file")
    name = re.sub(r"[^\w.-]|^\.+", "-", certificate.run) or "model"
    target = folder / "models" / name
    if target.exists() and not (target / "certificate.json").is_file():
        raise UsageError(f"there is a model {target} that tinyres did not write", hint="--out names another folder")
    with open_runner(artifact) as runner:
        throughput = measure_throughput(runner, certificate.batches, progress=progress)
        spec = runner.spec
    values = {"model": name, "server": SERVER}
    values |= {"size": str(spec.preprocess.image_size), "bytes": str(math.prod(spec.input_shape))}
    for place, batch in zip(("least", "usual", "most"), certificate.batches, strict=True):
        values[place] = "image:" + "x".join(map(str, (batch, *spec.input_shape)))
    for_cpu = is_for_cpu(certificate)
    scripts = ("client.py", "curl.sh", "serve.sh", *(() if passport or for_cpu else ("build_plan.sh",)))
    with staging(folder / name) as model:  # not in models/, which a server may be watching
        with storage_errors(target):
            write_bytes(model / "1" / ("model.plan" if passport else "model.onnx"), artifact.read_bytes())
            write_bytes(model / "certificate.json", certificate_path(artifact).read_bytes())
        write_text(model / "golden.json", proven_json(artifact, certificate, spec))
        write_text(model / "config.pbtxt", config_text(name, spec, certificate, throughput))
        write_text(model / "labels.txt", "".join(f"{' '.join(label.split())}\n" for label in spec.class_names))
        with storage_errors(target):
            target.parent.mkdir(exist_ok=True)
            _swap(model, target)
    for script in scripts:
        write_text(folder / script, fill_template(f"triton/{script}", values))
        with storage_errors(folder / script):
            (folder / script).chmod(0o755)
    return Repository(folder, name, throughput, certificate)


def _swap(model: Path, target: Path) -> None:
    """Move the folder `model` to `target`; what was there goes where `model` was, or comes back if that fails."""
    before = model.with_name("before")
    if not target.exists():
        model.replace(target)
        return
    target.replace(before)
    try:
        model.replace(target)
    except OSError:
        before.replace(target)
        raise


def is_for_cpu(certificate: Certificate) -> bool:
    """Whether a file is laid out for CPUs alone: int8 that no kernel of a GPU takes."""
    return certificate.calibration is not None and certificate.calibration.asked.target == "cpu"


def measure_throughput(runner: Runner, batches: tuple[int, int, int], *, progress: Progress) -> Throughput:
    """Throughput over the powers of two that the file takes, until doubling the batch has twice gained nothing."""
    least, _, most = batches
    sizes = [size for size in (1 << power for power in range(13)) if least <= size <= most] or [most]
    speeds: dict[int, float] = {}
    with progress.task("measuring batch sizes", len(sizes), "sizes") as task:
        for size in sizes:
            speeds[size] = _images_per_second(runner, size)
            task.advance(1)
            known = list(speeds.values())
            if len(known) > 2 and max(known[-2:]) < max(known[:-2]) / GOOD:
                break
    return Throughput(speeds, f"{runner.name} on {runner.device}")


def _images_per_second(runner: Runner, size: int) -> float:
    images = np.zeros((size, *runner.spec.input_shape), dtype=np.uint8)
    runner(images)
    best = 0.0
    for _ in range(ROUNDS):
        started, count = time.perf_counter(), 0
        while not count or time.perf_counter() - started < ROUND_S:
            runner(images)
            count += 1
        best = max(best, count * size / (time.perf_counter() - started))
    return best


def config_text(name: str, spec: ModelSpec, certificate: Certificate, throughput: Throughput) -> str:
    """A model's config.pbtxt. Dimensions are without the batch, as `max_batch_size` above 0 asks for."""
    passport = certificate.passport
    dims = ", ".join(map(str, spec.input_shape))
    preferred = throughput.preferred
    speeds = ", ".join(f"{size}: {speed:.0f}" for size, speed in throughput.images_per_second.items())
    built = f"\n# Built by {passport.built_for}: a server needs the same." if passport else ""
    kind = "KIND_GPU" if passport else "KIND_CPU" if is_for_cpu(certificate) else "KIND_AUTO"
    outputs = ",\n".join(
        f'  {{ name: "{output}" data_type: TYPE_FP32 dims: [ {spec.classes} ] label_filename: "labels.txt" }}'
        for output in ("logits", "probabilities")
    )
    warmups = "\n".join(
        f"""model_warmup {{
  name: "batch of {size}"
  batch_size: {size}
  inputs {{ key: "image" value {{ data_type: TYPE_UINT8 dims: [ {dims} ] zero_data: true }} }}
}}"""
        for size in dict.fromkeys((1, *preferred))
    )
    run = " ".join(certificate.run.split())  # a line break would end the comment
    return f"""# {certificate.artifact} of run {run}, proven ({certificate.grade}): certificate.json.{built}
name: {json.dumps(name)}
backend: "{"tensorrt" if passport else "onnxruntime"}"
default_model_filename: "{"model.plan" if passport else "model.onnx"}"
max_batch_size: {certificate.batches[2]}
input [
  {{ name: "image" data_type: TYPE_UINT8 dims: [ {dims} ] }}
]
output [
{outputs}
]
instance_group [ {{ count: 1 kind: {kind} }} ]
# Pictures a second by batch size, on {throughput.where}: {speeds}
dynamic_batching {{
  preferred_batch_size: [ {", ".join(map(str, preferred))} ]
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
}}
{warmups}
"""
