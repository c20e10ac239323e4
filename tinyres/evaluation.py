"""Run a model over a split: logits, loss, accuracy. Shared by training, `tinyres eval` and the proof.

It changes neither the model's mode for good nor any file.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from tinyres.data.augment import normalize
from tinyres.metrics import Accuracy, accuracy_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.data.dataset import Split
    from tinyres.model import ResNet
    from tinyres.progress import Task
    from tinyres.spec import Preprocess


BATCH = 100
GPU_BATCH = 1000
"""Pictures of 64x64 at a time; fewer where they are larger."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's answers over a split."""

    loss: float
    """Mean cross entropy, without label smoothing."""
    accuracy: Accuracy
    logits: NDArray[np.float32]
    """(N, C)"""


def evaluate(
    model: ResNet, split: Split, preprocess: Preprocess, *, mirrored: bool = False, task: Task | None = None
) -> Evaluation:
    """Judge `model` in evaluation mode on its own device, in float32. Errors: ValueError if an answer is not finite.

    `mirrored` averages the logits of each picture and its mirror image (test-time augmentation).
    """
    logits = compute_logits(model, split.images, preprocess, mirrored=mirrored, task=task)
    return evaluation_of(logits, split)


def evaluation_of(logits: NDArray[np.float32], split: Split) -> Evaluation:
    """What logits (N, C) of a split's pictures are worth. Errors: ValueError if one is not finite."""
    loss = functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(np.asarray(split.labels)))
    return Evaluation(loss=loss.item(), accuracy=accuracy_of(logits, split.labels), logits=logits)


def compute_logits(
    model: ResNet,
    images: NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    mirrored: bool = False,
    task: Task | None = None,
) -> NDArray[np.float32]:
    """Logits (N, C) of (N, S, S, 3) uint8 images, by the model as it is, in evaluation mode."""
    training = model.training
    model.eval()
    batch = BATCH if model.fc.weight.device.type == "cpu" else GPU_BATCH
    batch = max(1, batch * 64**2 // preprocess.image_size**2)
    try:
        logits = _logits(model, images, preprocess, batch=batch, mirrored=mirrored, task=task)
        return logits.astype(np.float32, copy=False)
    finally:
        model.train(training)


def reference_logits(
    model: ResNet, images: NDArray[np.uint8], preprocess: Preprocess, *, task: Task | None = None
) -> NDArray[np.float64]:
    """Logits (N, C) computed in float64 on the CPU: what rounding in float32 is measured against."""
    exact = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).eval()
    return _logits(exact, images, preprocess, batch=16, mirrored=False, task=task)


def _logits(
    model: ResNet, images: NDArray[np.uint8], preprocess: Preprocess, *, batch: int, mirrored: bool, task: Task | None
) -> NDArray[Any]:
    weight = model.fc.weight
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(np.array(images[start : start + batch]))  # a copy: maps are read-only
            inputs = normalize(pixels.to(weight.device), preprocess, dtype=weight.dtype)
            logits = model(inputs)
            parts.append((logits + model(inputs.flip(3))) / 2 if mirrored else logits)
            if task is not None:
                task.advance(len(pixels))
        # Gathered on the device: a copy to the host after each batch would make it wait.
        joined = torch.cat(parts) if parts else torch.empty(0, model.fc.out_features)
        return (joined.float() if joined.dtype == torch.bfloat16 else joined).cpu().numpy()
