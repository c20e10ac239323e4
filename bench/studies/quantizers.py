"""Our int8 beside that of other tools: `python -m tinyres.bench.studies.quantizers MODEL DATA`.

All start from the same float32 file and the same calibration pictures. Prints one JSON text: for each tool's file, on
ONNX Runtime and OpenVINO, how it answers over the whole validation split, and how much faster it is than float32, timed
in turns. Tools that are not installed are named as such. Beside them: our methods with and without the correction of
biases, and what calibrations that went wrong clip.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import openvino
from onnxruntime import quantization as ort

from tinyres import environment, records
from tinyres.checkpoint import load_weights
from tinyres.data.dataset import open_dataset
from tinyres.export.calibration import METHODS, measure
from tinyres.export.int8 import calibrated, choose_pictures
from tinyres.export.onnx import describe, float_model, onnx_from_checkpoint
from tinyres.export.options import Int8Options
from tinyres.export.parity import REFERENCE_IMAGES, rms, share
from tinyres.export.quantize import quantize, rounded_tensors
from tinyres.export.ranges import clipped_counts
from tinyres.progress import Silent
from tinyres.runs import find_model
from tinyres.runtime.metadata import metadata_of
from tinyres.runtime.onnxruntime_cpu import open_content, quiet_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.checkpoint import Checkpoint
    from tinyres.runtime.metadata import Target

    Pixels = NDArray[np.uint8]
    Answer = Callable[[Pixels], NDArray[np.float32]]

BATCH = 50
PART = 2000
"""Validation pictures for each calibration."""
TIMED = (1, 32)
ROUNDS, BLOCK_S = 12, 0.4
OPERATIONS = ["Conv", "Relu", "Add", "GlobalAveragePool", "Gemm", "Flatten"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A tool's file on a backend."""

    tool: str
    backend: str
    file_bytes: int
    error: float
    """RMS of the difference to float32, as a share of the signal."""
    agreement: float
    """Share of pictures with float32's class."""
    accuracy: float
    difference: float
    """In accuracy, to float32's."""
    speedup: dict[int, float]
    """Over float32 on the same backend, by batch size: medians of blocks in turns."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Our int8 by one method on some pictures, with every layer in int8."""

    target: Target
    pictures: str
    method: str
    error: float
    """RMS of the difference to float32, as a share of the signal, over part of the validation split."""
    uncorrected: float
    """The same with the biases left as they were."""
    agreement: float
    clipped: float
    """Largest share of a layer's values outside its range, over the validation pictures."""


def main() -> None:
    """Measure the model that the arguments name, on the data that they name."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m tinyres.bench.studies.quantizers MODEL DATA")
    name, data = sys.argv[1:]
    checkpoint = load_weights(find_model(name, Path("runs")).path)
    dataset = open_dataset(data, image_size=checkpoint.spec.preprocess.image_size)
    floats = onnx_from_checkpoint(checkpoint)
    chosen = choose_pictures(dataset, checkpoint, Int8Options().images)
    pictures = chosen.measured

    def ours(target: Target, most_drop: float | None = None) -> bytes:
        asked = Int8Options(target=target, most_drop=most_drop)
        return next(calibrated(checkpoint, chosen, asked, progress=Silent()))[0]

    ways: dict[str, Callable[[], bytes]] = {
        "tinyres, cpu": lambda: ours("cpu"),
        "tinyres, cpu, the ends in int8 too": lambda: ours("cpu", most_drop=0.99),
        "tinyres, tensorrt": lambda: ours("tensorrt"),
        **{f"ONNX Runtime, {method.name}, u8": _static(floats, pictures, method) for method in ort.CalibrationMethod},
        "ONNX Runtime, Percentile, s8": _static(floats, pictures, ort.CalibrationMethod.Percentile, signed=True),
        "NNCF, performance": lambda: _nncf(floats, pictures, "PERFORMANCE"),
        "NNCF, mixed": lambda: _nncf(floats, pictures, "MIXED"),
        "Model Optimizer, max": lambda: _modelopt(floats, pictures, "max"),
        "Model Optimizer, entropy": lambda: _modelopt(floats, pictures, "entropy"),
    }
    ways.pop("ONNX Runtime, Distribution, u8")  # for 8-bit floats alone
    files, absent = {"float32": floats}, {}
    for tool, make in ways.items():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # they print
                files[tool] = make()
        except Exception as exc:  # noqa: BLE001 - what another tool cannot do is part of the result
            absent[tool] = f"{type(exc).__name__}: {str(exc).strip().splitlines()[0][:200]}"
        print(tool, absent.get(tool, "made"), file=sys.stderr)
    images, labels = np.array(dataset.val.images), np.array(dataset.val.labels)
    measured = []
    for backend, open_file in {"onnxruntime-cpu": _onnxruntime, "openvino": _openvino}.items():
        runs = {}
        for tool, content in files.items():
            try:
                runs[tool] = open_file(content)
                runs[tool](images[:1])
            except Exception as exc:  # noqa: BLE001 - the same
                absent[f"{tool} on {backend}"] = f"{type(exc).__name__}: {str(exc).strip().splitlines()[-1][:200]}"
                runs.pop(tool, None)
        answers = {
            tool: np.concatenate([run(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])
            for tool, run in runs.items()
        }
        medians = {batch: _in_turns(runs, images[:batch]) for batch in TIMED}
        reference = answers["float32"]
        signal = rms(reference - reference.mean(axis=0))
        right = (reference.argmax(axis=1) == labels).mean()
        for tool, logits in answers.items():
            accuracy = float((logits.argmax(axis=1) == labels).mean())
            measured.append(
                Measured(
                    tool=tool,
                    backend=backend,
                    file_bytes=len(files[tool]),
                    error=share(rms(logits - reference), signal),
                    agreement=float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
                    accuracy=accuracy,
                    difference=float(accuracy - right),
                    speedup={batch: found["float32"] / found[tool] for batch, found in medians.items()},
                )
            )
            print(measured[-1], file=sys.stderr)
    tools = {package: importlib.metadata.version(package) for package in ("nncf", "nvidia-modelopt") if _here(package)}
    whole = {
        "command": environment.command_line(),
        "environment": environment.capture(),
        "tools": tools,
        "checkpoint_sha256": checkpoint.sha256,
        "images": len(images),
        "calibration_images": len(pictures),
        "failed": absent,
        "measured": measured,
        "calibrations": _calibrations(checkpoint, pictures, images[:: len(images) // PART]),
    }
    print(records.to_json(whole))


def _calibrations(checkpoint: Checkpoint, pictures: Pixels, images: Pixels) -> list[Calibrated]:
    """Each method on the right pictures, and one on pictures that are not."""
    floats = onnx_from_checkpoint(checkpoint)
    preprocess = replace(checkpoint.spec.preprocess, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    plain = replace(checkpoint, spec=replace(checkpoint.spec, preprocess=preprocess))
    wrong = {
        "in BGR": (floats, pictures[..., ::-1]),
        "the first one repeated": (floats, np.repeat(pictures[:1], len(pictures), 0)),
        "another one repeated": (floats, np.repeat(pictures[100:101], len(pictures), 0)),
        "black": (floats, np.zeros_like(pictures)),
        "without mean and std": (onnx_from_checkpoint(plain), pictures),
    }
    ways = [("right", floats, pictures, method) for method in METHODS]
    ways += [(name, content, part, "percentile 99.999") for name, (content, part) in wrong.items()]
    found = []
    targets: tuple[Target, ...] = ("cpu", "tensorrt")
    for target in targets:
        for name, content, part, method in ways:
            found.append(_calibrate(checkpoint, target, name, content, part, method, images))
            print(found[-1], file=sys.stderr)
    return found


def _calibrate(
    checkpoint: Checkpoint, target: Target, name: str, content: bytes, part: Pixels, method: str, images: Pixels
) -> Calibrated:
    model, floats = float_model(checkpoint), onnx_from_checkpoint(checkpoint)
    measured = measure(content, rounded_tensors(model, target=target), part, progress=Silent())
    ranges = {tensor: METHODS[method](histogram, symmetric=target != "cpu") for tensor, histogram in measured.items()}
    means = {tensor: histogram.means for tensor, histogram in measured.items()}
    nothing = {tensor: np.zeros_like(mean) for tensor, mean in means.items()}
    files = [
        describe(quantize(model, ranges, taken, target=target), checkpoint, "int8", target=target)
        for taken in (means, nothing)
    ]
    reference, corrected, uncorrected = (
        np.concatenate([run(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])
        for run in (open_content(file, metadata_of(file), "the file").infer for file in (floats, *files))
    )
    signal = rms(reference - reference.mean(axis=0))
    counts = clipped_counts(files[0], floats, images[:REFERENCE_IMAGES], progress=Silent())
    return Calibrated(
        target=target,
        pictures=name,
        method=method,
        error=share(rms(corrected - reference), signal),
        uncorrected=share(rms(uncorrected - reference), signal),
        agreement=float((corrected.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        clipped=max(outside / seen for outside, seen in counts.values()),
    )


def _here(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


class _Reader(ort.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pictures: Pixels) -> None:
        self._pictures = iter(pictures[at : at + 16] for at in range(0, len(pictures), 16))

    def get_next(self) -> dict[str, Pixels] | None:
        part = next(self._pictures, None)
        return None if part is None else {"image": part}


def _static(floats: bytes, pictures: Pixels, method: Any, *, signed: bool = False) -> Callable[[], bytes]:
    """ONNX Runtime's own, with what its documentation advises: QDQ, per channel."""

    def make() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(floats)
            kind = ort.QuantType.QInt8 if signed else ort.QuantType.QUInt8
            ort.quantize_static(
                source,
                target,
                _Reader(pictures),
                quant_format=ort.QuantFormat.QDQ,
                op_types_to_quantize=OPERATIONS,
                per_channel=True,
                activation_type=kind,
                weight_type=ort.QuantType.QInt8,
                calibrate_method=method,
                extra_options={"ActivationSymmetric": signed, "QuantizeBias": not signed},
            )
            return target.read_bytes()

    return make


def _nncf(floats: bytes, pictures: Pixels, preset: str) -> bytes:
    import nncf

    data = nncf.Dataset(list(pictures), lambda picture: {"image": picture[None]})
    chosen = getattr(nncf.QuantizationPreset, preset)
    model = nncf.quantize(onnx.load_model_from_string(floats), data, preset=chosen, subset_size=len(pictures))
    return bytes(model.SerializeToString())


def _modelopt(floats: bytes, pictures: Pixels, method: str) -> bytes:
    from modelopt.onnx import quantization

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(floats)
        quantization.quantize(
            str(source),
            quantize_mode="int8",
            calibration_data={"image": pictures},
            calibration_method=method,
            calibration_eps=["cpu"],
            output_path=str(target),
            high_precision_dtype="fp32",
        )
        return target.read_bytes()


def _onnxruntime(content: bytes) -> Answer:
    session = onnxruntime.InferenceSession(content, quiet_options(), providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"image": images})[0])


def _openvino(content: bytes) -> Answer:
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content, b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    return lambda images: np.array(request.infer({"image": images}, share_inputs=True)["logits"])


def _in_turns(runs: dict[str, Answer], images: Pixels) -> dict[str, float]:
    """The median time of each over `images`, measured in blocks: first to last, last to first, and so on."""
    samples: dict[str, list[float]] = {tool: [] for tool in runs}
    for turn in range(ROUNDS):
        for tool in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            end = time.perf_counter() + BLOCK_S
            runs[tool](images)
            while time.perf_counter() < end or not samples[tool]:
                before = time.perf_counter()
                runs[tool](images)
                samples[tool].append(time.perf_counter() - before)
    return {tool: float(np.median(times)) for tool, times in samples.items()}


if __name__ == "__main__":
    main()
