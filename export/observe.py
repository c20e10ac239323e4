"""The values between a graph's layers, as ONNX Runtime computes them in float32 on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from tinyres.runtime.onnxruntime_cpu import PROVIDER, quiet_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from tinyres.progress import Progress

PIXELS = 8 * 64 * 64
"""So many at a time, since all layers' values are held at once: 14 MB for 64x64 of a ResNet-34."""


def observe(
    content: bytes, names: Sequence[str], images: NDArray[np.uint8], *, title: str, progress: Progress
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the values of the tensors `names` of the file `content` over `images` (N, S, S, 3), some at a time."""
    model = onnx.load_model_from_string(content)
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet_options(), providers=[PROVIDER])
    with progress.task(title, len(images), "images") as task:
        batch = max(1, PIXELS // (images.shape[1] * images.shape[2]))
        for start in range(0, len(images), batch):
            part = np.ascontiguousarray(images[start : start + batch])
            yield dict(zip(names, session.run(list(names), {"image": part}), strict=True))
            task.advance(len(part))
