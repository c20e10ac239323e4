"""Where a failed conversion leaves its checkpoint: the first layer whose error is more than rounding adds.

Layer by layer the file's values are held against PyTorch's in float64, by the names that both share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from tinyres.data.augment import normalize
from tinyres.export.observe import observe
from tinyres.export.precisions import PRECISIONS
from tinyres.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tinyres.checkpoint import Checkpoint
    from tinyres.runtime.metadata import Stored

IMAGES, PART = 16, 4
"""Looked at, and held at once: 42 MB a picture of 64x64 for a ResNet-34."""
DEAD = 1e-12
"""A layer whose signal is a smaller share of its values has none."""
GROWTH = 10
"""From one layer to the next an error may grow so many times; and rounding alone adds up to as many units."""


def first_diverging(content: bytes, checkpoint: Checkpoint, images: NDArray[np.uint8], precision: Stored) -> str:
    """The layer of the ONNX file `content` where the error leaves the expected growth, in words; empty if none does.

    `images` (N, S, S, 3), of which a few are looked at. Errors: those of ONNX Runtime for a file that it does not run.
    """
    content_names = {output for node in onnx.load_model_from_string(content).graph.node for output in node.output}
    names: list[str] = []
    sums: dict[str, _Sums] = {}
    for start in range(0, min(len(images), IMAGES), PART):
        part = images[start : start + PART]
        reference = layer_values(checkpoint, part)
        names = [name for name in reference if name in content_names]
        found = list(observe(content, names, part, title="comparing layers", progress=Silent()))
        for name in names:
            values = np.concatenate([values[name] for values in found]).astype(np.float64)
            sums.setdefault(name, _Sums()).add(values, reference[name])
    largest = 0.0
    for name in names:
        error = sums[name].error
        if not error <= GROWTH * max(largest, PRECISIONS[precision].unit):
            return f"{name} is the first layer off: error {error:.1e} of its signal, {largest:.1e} before it"
        largest = max(largest, error)
    return ""


@dataclass
class _Sums:
    """Over the pictures, by place of a layer's values: enough for its error and its signal."""

    pictures: int = 0
    difference: float = 0.0
    exact: Any = 0.0
    square: Any = 0.0

    def add(self, values: NDArray[np.float64], exact: NDArray[np.float64]) -> None:
        self.pictures += len(exact)
        self.difference += float(np.square(values.reshape(exact.shape) - exact).sum())
        self.exact = self.exact + exact.sum(axis=0)
        self.square = self.square + np.square(exact).sum(axis=0)

    @property
    def error(self) -> float:
        """As a share of the signal; of a layer without one, which answers every picture alike, of its values."""
        values = float(self.square.sum())
        signal = values - float(np.square(self.exact).sum()) / self.pictures
        whole = signal if signal > DEAD * values else values
        return float(np.sqrt(self.difference / whole)) if whole else float(self.difference > 0)


def layer_values(checkpoint: Checkpoint, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """What the checkpoint's layers answer in float64, under the graph's names, in the order they are computed."""
    model = checkpoint.model().double().eval()
    values: dict[str, NDArray[np.float64]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: values.update({name: output.numpy().copy()})  # Relu writes into it

    for name, module in model.named_modules():
        head, _, last = name.rpartition(".")
        prefix = f"{head}." if head else ""
        if last in ("bn1", "bn2"):  # folded into the convolution before it
            module.register_forward_hook(keep(f"{prefix}conv{last[-1]}"))
        elif head.endswith("downsample") and last == "1":
            module.register_forward_hook(keep(f"{prefix}0"))
        elif head.startswith("layer") and head.count(".") == 0 and last.isdigit():
            module.register_forward_hook(keep(f"{name}.relu2"))
        elif name == "fc":
            module.register_forward_hook(keep("logits"))
    pictures = normalize(torch.from_numpy(images), checkpoint.spec.preprocess).double()
    values["preprocess.normalized"] = pictures.numpy()
    with torch.inference_mode():
        model(pictures)
    return values
