"""int8 from a checkpoint and training pictures: ranges measured on some, chosen by how others are answered.

Nothing here looks at validation pictures: they are the proof's, which may send a file with a largest drop back for the
next one. Errors are shares of the signal, as there.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx

from tinyres import environment
from tinyres.errors import CheckpointError, DataError, ProofError
from tinyres.export.calibration import METHODS, measure
from tinyres.export.certificate import Calibration, LayerError, MethodTried
from tinyres.export.onnx import describe, float_model
from tinyres.export.options import LEAST_IMAGES
from tinyres.export.parity import EPSILON, rms, share
from tinyres.export.quantize import layers_of, quantize, rounded_tensors
from tinyres.export.ranges import MOST_CLIPPED
from tinyres.metrics import paired_interval
from tinyres.runtime.metadata import metadata_of
from tinyres.runtime.onnxruntime_cpu import open_content

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from tinyres.checkpoint import Checkpoint
    from tinyres.data.dataset import Dataset
    from tinyres.export.options import Int8Options
    from tinyres.export.quantize import Range
    from tinyres.progress import Progress

HELD_OUT = 1000
SENSITIVITY_IMAGES = 64
BATCH = 32
PAYS = 4
"""The first or last layer stays in float32 if its share of the error is so many times its share of the work."""
MOST_KEPT = 0.5
"""With more of the work in float32 it is no int8 any more, and fp16 or bf16 the better choice."""
FARTHEST = 1.0
"""The mean colour of other data may be so many standard deviations from that of the training's."""
ROUNDING = 1e-6
"""A drop of 0.3 % of 1,000 pictures is three of them, though not in binary fractions."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Training pictures, none of them in both parts."""

    kind: str
    """Of their data, as in its manifest."""
    fingerprint: str
    measured: NDArray[np.uint8]
    """(N, S, S, 3) that the ranges are measured on."""
    held_out: NDArray[np.uint8]
    """(M, S, S, 3)"""
    labels: NDArray[np.int64]
    """(M,)"""


def choose_pictures(dataset: Dataset, checkpoint: Checkpoint, count: int) -> Pictures:
    """`count` pictures of the training split, or half of it, and others; always the same ones.

    Errors: DataError for too few, for pictures that are all alike, and for other data than the checkpoint learned from
    whose colours are not like its own.
    """
    train, manifest = dataset.train, dataset.manifest
    count = min(count, len(train) // 2)
    if count < LEAST_IMAGES:
        raise DataError(
            f"{len(train)} training pictures are too few for int8: it takes {2 * LEAST_IMAGES}",
            hint="--data names more; --precision fp16 and bf16 need none",
        )
    order = np.random.default_rng(0).permutation(len(train))
    first, second = np.sort(order[:count]), np.sort(order[count : count + HELD_OUT])
    measured, held_out = np.array(train.images[first]), np.array(train.images[second])
    different = len({picture.tobytes() for picture in measured})
    if different < LEAST_IMAGES:
        raise DataError(f"{count} training pictures hold {different} different ones: they set no ranges for int8")
    origin, preprocess = checkpoint.origin, checkpoint.spec.preprocess
    if origin.data_kind != "unknown" and origin.data_fingerprint != manifest.fingerprint:
        colour = measured.mean(axis=(0, 1, 2)) / 255
        distance = float(np.abs((colour - np.array(preprocess.mean)) / np.array(preprocess.std)).max())
        if distance > FARTHEST:
            raise DataError(
                f"the pictures of {dataset.name} are not like those of the training: their mean colour is"
                f" {distance:.1f} standard deviations off",
                hint="int8 takes its ranges from pictures like those that will be classified",
            )
    return Pictures(manifest.kind, manifest.fingerprint, measured, held_out, np.array(train.labels[second]))


def calibrated(
    checkpoint: Checkpoint, pictures: Pictures, asked: Int8Options, *, progress: Progress
) -> Iterator[tuple[bytes, Calibration]]:
    """Yield the int8 file of a checkpoint and how it came about, for the proof to judge.

    If a largest drop of accuracy was asked for: the fastest file that keeps it on the pictures held out, and then, as
    long as another is wanted, slower ones with more layers in float32. Errors: CheckpointError for weights that answer
    NaN or always the same; ProofError if no file keeps the drop even there.
    """
    network = _Network(checkpoint, pictures, asked, progress)
    if asked.most_drop is None:
        kept = keep_ends(network.layers)
        if kept:
            progress.log(f"kept in float32, for their share of the error: {', '.join(kept)}")
        yield network.made(kept)[:2]
        return
    best, least, found_any = "", math.inf, False
    for kept in ladder(network.layers):
        content, record, lost = network.made(kept)
        drop = lost / len(pictures.labels)
        found = f"{0 - drop * 100:+.2f} points on {len(pictures.labels)} held-out pictures, {_names(kept)} in float32"
        progress.log(found)
        if drop < least:
            best, least = found, drop
        if lost <= asked.most_drop * len(pictures.labels) + ROUNDING:
            found_any = True
            yield content, record
    if not found_any:
        raise ProofError(
            f"no int8 file loses at most {asked.most_drop * 100:g} points; the best: {best}",
            hint="--precision fp16 and bf16 lose less",
        )


def keep_ends(layers: tuple[LayerError, ...]) -> list[str]:
    """Which of the first and last layer to keep in float32: little work, and often much of the error."""
    total = sum(layer.error**2 for layer in layers) or math.inf
    return [layer.layer for layer in (layers[0], layers[-1]) if layer.error**2 / total > PAYS * layer.work]


def ladder(layers: tuple[LayerError, ...]) -> Iterator[list[str]]:
    """Layers to keep in float32: none, then more and more, those first that gain most for the work that they cost."""
    order = sorted(layers, key=lambda layer: layer.error**2 / max(layer.work, 1e-9), reverse=True)
    for count in range(len(order)):
        if sum(layer.work for layer in order[:count]) > MOST_KEPT:
            return
        yield [layer.layer for layer in order[:count]]


def choose_method(tried: list[MethodTried], right: list[NDArray[np.bool_]]) -> int:
    """The place of the one with the least error, among those whose accuracy is not provably below the best's.

    `right` (M,) says for each which pictures it got right. Accuracy alone would be decided by a few pictures' luck. One
    that clips so much that the proof would refuse it is taken only if all do.
    """
    fit = [index for index in range(len(tried)) if tried[index].clipped <= MOST_CLIPPED] or list(range(len(tried)))
    best = max(fit, key=lambda index: tried[index].accuracy)

    def worse(index: int) -> bool:
        gained, lost = int((right[index] & ~right[best]).sum()), int((~right[index] & right[best]).sum())
        return paired_interval(gained, lost, len(right[best]))[2] < 0

    return min((index for index in fit if not worse(index)), key=lambda index: tried[index].error)


class _Network:
    """A checkpoint's network with its ranges, to be written with any of its layers in float32."""

    def __init__(self, checkpoint: Checkpoint, pictures: Pictures, asked: Int8Options, progress: Progress) -> None:
        self._checkpoint, self._pictures, self._asked, self._progress = checkpoint, pictures, asked, progress
        self._model = float_model(checkpoint)
        floats = describe(float_model(checkpoint), checkpoint, "fp32")
        names = rounded_tensors(self._model, target=asked.target)
        self._histograms = measure(floats, names, pictures.measured, progress=progress)
        self._ranges: dict[str, dict[str, Range]] = {
            name: {tensor: method(known, symmetric=asked.target != "cpu") for tensor, known in self._histograms.items()}
            for name, method in METHODS.items()
        }
        self._reference = self._answers(floats, pictures.held_out)
        self._signal = rms(self._reference - self._reference.mean(axis=0, dtype=np.float64))
        if not self._signal > EPSILON * rms(self._reference):
            raise CheckpointError("the checkpoint answers alike for every picture: nothing shows what int8 changes")
        self._right = self._reference.argmax(axis=1) == pictures.labels
        self._tried, self._chosen = self._try_methods()
        self.layers = self._try_layers()

    def made(self, kept: Collection[str]) -> tuple[bytes, Calibration, int]:
        """The file with the layers `kept` in float32, how it came about, and how many more it gets wrong."""
        content = self._write(kept, self._chosen.method, reduced=self._chosen.reduced)
        answers = self._answers(content, self._pictures.held_out)
        lost = int(self._right.sum() - (answers.argmax(axis=1) == self._pictures.labels).sum())
        record = Calibration(
            asked=self._asked,
            data_kind=self._pictures.kind,
            data_fingerprint=self._pictures.fingerprint,
            images=len(self._pictures.measured),
            sha256=hashlib.sha256(self._pictures.measured.tobytes()).hexdigest(),
            held_out=len(self._pictures.labels),
            checkpoint_accuracy=float(self._right.mean()),
            method=self._chosen.method,
            reduced=self._chosen.reduced,
            error=self._error(answers),
            tried=tuple(self._tried),
            layers=tuple(replace(layer, kept=layer.layer in kept) for layer in self.layers),
        )
        return content, record, lost

    def _write(self, kept: Collection[str], method: str, *, reduced: bool, outputs: bool = True) -> bytes:
        target = self._asked.target
        means = {name: histogram.means for name, histogram in self._histograms.items()}
        ranges = self._ranges[method]
        model = quantize(self._model, ranges, means, target=target, kept=kept, reduced=reduced, outputs=outputs)
        return describe(model, self._checkpoint, "int8", target=target)

    def _answers(self, content: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        backend = open_content(content, metadata_of(content), "the file")
        parts = [backend.infer(np.ascontiguousarray(images[at : at + BATCH])) for at in range(0, len(images), BATCH)]
        return np.concatenate(parts)

    def _error(self, answers: NDArray[np.float32]) -> float:
        reference = self._reference[: len(answers)]
        return share(rms(answers - reference), self._signal)

    def _try_methods(self) -> tuple[list[MethodTried], MethodTried]:
        """Judge each way to choose ranges by the pictures held out; return all and the one to take."""
        narrower = (True,) if self._asked.reduced else (False, True) if overflows(self._asked) else (False,)
        ways = [(method, reduced) for method in METHODS for reduced in narrower]
        tried, right = [], []
        with self._progress.task("trying ranges", len(ways), "ways") as task:
            for method, reduced in ways:
                answers = self._answers(self._write((), method, reduced=reduced), self._pictures.held_out)
                right.append(answers.argmax(axis=1) == self._pictures.labels)
                tried.append(
                    MethodTried(
                        method=method,
                        reduced=reduced,
                        error=self._error(answers),
                        agreement=float((answers.argmax(axis=1) == self._reference.argmax(axis=1)).mean()),
                        accuracy=float(right[-1].mean()),
                        clipped=max(
                            histogram.clipped(self._ranges[method][name])
                            for name, histogram in self._histograms.items()
                        ),
                    )
                )
                task.advance(1, method)
        chosen = tried[choose_method(tried, right)]
        self._progress.log(f"ranges by {chosen.method}: error {chosen.error:.1%} of the signal")
        return tried, chosen

    def _try_layers(self) -> tuple[LayerError, ...]:
        """The error of each layer when it alone is in int8: that of its weights and its input, not of its output.

        That one is the next layer's, and stays rounded if this layer goes back to float32.
        """
        names, work = layers_of(self._model), work_of(self._model)
        images = self._pictures.held_out[:SENSITIVITY_IMAGES]
        found = []
        with self._progress.task("trying layers", len(names), "layers") as task:
            for name in names:
                others = [other for other in names if other != name]
                content = self._write(others, self._chosen.method, reduced=self._chosen.reduced, outputs=False)
                found.append(LayerError(name, self._error(self._answers(content, images)), work[name], kept=False))
                task.advance(1, name)
        return tuple(found)


def work_of(model: onnx.ModelProto) -> dict[str, float]:
    """Each layer's share of the network's multiplications."""
    known = onnx.shape_inference.infer_shapes(model).graph.value_info
    sizes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in known}
    kernels = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    places = {name: math.prod(size[2:]) for name, size in sizes.items()}
    work = {
        node.name: kernels[node.input[1]] * places.get(node.output[0], 1)
        for node in model.graph.node
        if node.name in layers_of(model)
    }
    return {name: value / sum(work.values()) for name, value in work.items()}


def overflows(asked: Int8Options) -> bool:
    """Whether this processor adds pairs of products in 16 bits, as x86 without VNNI does: full weights may overflow."""
    here = environment.capture()
    x86 = here.machine.lower() in ("x86_64", "amd64")
    return (
        x86
        and asked.target == "cpu"
        and not any("vnni" in name or name == "amx_int8" for name in here.instruction_sets)
    )


def _names(layers: Collection[str]) -> str:
    return ", ".join(layers) if layers else "no layer"
