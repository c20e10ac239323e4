"""Whether a network's numbers fit into float16: looked at before the conversion's answers are.

ONNX Runtime's CPU provider computes float16 in float32, so an overflow that a GPU would turn into infinity shows in no
answer here. It does in the float32 values of the layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from tinyres.export.certificate import Level
from tinyres.runtime.onnxruntime_cpu import PROVIDER, quiet_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.progress import Progress

LARGEST = float(np.finfo(np.float16).max)
ROOM = 4
"""Pictures that were not looked at may reach so many times further."""
WATCHED = ("Conv", "Add", "GlobalAveragePool", "Gemm")
"""The operations whose results grow; the others only pass on what these computed."""
BATCH = 4
"""All layers' values are held at once."""


def largest_values(content: bytes, images: NDArray[np.uint8], *, progress: Progress) -> dict[str, float]:
    """The largest magnitude that each layer of the float32 file `content` reaches over `images` (N, S, S, 3)."""
    model = onnx.load_model_from_string(content)
    names = [node.output[0] for node in model.graph.node if node.op_type in WATCHED]
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet_options(), providers=[PROVIDER])
    largest = dict.fromkeys(names, 0.0)
    with progress.task("looking at layers", len(images), "images") as task:
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            for name, values in zip(names, session.run(names, {"image": part}), strict=True):
                largest[name] = float(np.maximum(largest[name], np.abs(values).max()))  # which keeps a NaN
            task.advance(len(part))
    return largest


def judge_range(largest: dict[str, float]) -> Level:
    """Whether float16 holds what the layers reach, with room for other pictures. Nothing looked at has not passed."""
    if not largest:
        return Level.failed("range", "no layer was looked at")
    layer = next((name for name in largest if np.isnan(largest[name])), max(largest, key=lambda name: largest[name]))
    value, limit = largest[layer], LARGEST / ROOM
    detail = f"layers reach {value:.3g} ({layer}); float16 holds {LARGEST:,.0f}"
    return Level.judged("range", value <= limit, {"largest": value}, {"largest": limit}, detail)
