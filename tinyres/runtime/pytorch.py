"""PyTorch on a checkpoint, as it is after training: the row that every export is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tinyres.checkpoint import load_weights
from tinyres.data.augment import normalize
from tinyres.errors import BackendUnavailable
from tinyres.model import ResNet, pick_device
from tinyres.runtime.runner import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.spec import ModelSpec


class PyTorch:
    """The model in eager mode, channels-last, in float32 without TF32."""

    name = "pytorch"

    def __init__(self, model: ResNet, spec: ModelSpec, device: torch.device) -> None:
        self.device = str(device)
        self.spec = spec
        self.precision = Precision("fp32", "fp32")
        self._model = model.to(device).to(memory_format=torch.channels_last)

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy in, normalise, run, copy out."""
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(np.require(images, requirements="W")).to(self.device)
                logits: NDArray[np.float32] = self._model(normalize(pixels, self.spec.preprocess)).cpu().numpy()
        except RuntimeError as exc:
            raise BackendUnavailable(f"PyTorch failed: {str(exc).splitlines()[0]}") from exc
        return logits

    def close(self) -> None:
        """Drop the weights."""
        del self._model


def open_backend(path: Path, *, threads: int | None) -> PyTorch:
    """Load a checkpoint onto the default device. Errors: CheckpointError."""
    checkpoint = load_weights(path)
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return PyTorch(checkpoint.model(), checkpoint.spec, pick_device())
