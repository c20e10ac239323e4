"""Whether a network's numbers fit into float16, or into an int8 file's ranges: seen in the layers' float32 values.

ONNX Runtime's CPU provider computes float16 in float32, so an overflow that a GPU would turn into infinity shows in no
answer here. And ranges that were measured on the wrong pictures may still answer most of the right ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from tinyres.export.certificate import Level
from tinyres.export.observe import observe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.progress import Progress

LARGEST = float(np.finfo(np.float16).max)
ROOM = 4
"""Pictures that were not looked at may reach so many times further."""
MOST_CLIPPED = 1e-3
"""Share of a layer's values that may lie outside its range: calibrations of the trained nano by methods that come near
clip at most an eighth of that, one on a single picture ten times as much (results/int8)."""
FEW = 16
"""Values that may lie outside in any case: of a small layer over few pictures, one would be a large share."""
WATCHED = ("Conv", "Add", "GlobalAveragePool", "Gemm")
"""The operations whose results grow; the others only pass on what these computed."""


def largest_values(content: bytes, images: NDArray[np.uint8], *, progress: Progress) -> dict[str, float]:
    """The largest magnitude that each layer of the float32 file `content` reaches over `images` (N, S, S, 3)."""
    graph = onnx.load_model_from_string(content).graph
    names = [node.output[0] for node in graph.node if node.op_type in WATCHED]
    largest = dict.fromkeys(names, 0.0)
    for values in observe(content, names, images, title="looking at layers", progress=progress):
        for name, value in values.items():
            largest[name] = float(np.maximum(largest[name], np.abs(value).max()))  # which keeps a NaN
    return largest


def judge_range(largest: dict[str, float]) -> Level:
    """Whether float16 holds what the layers reach, with room for other pictures. Nothing looked at has not passed."""
    if not largest:
        return Level.failed("range", "no layer was looked at")
    layer = next((name for name in largest if np.isnan(largest[name])), max(largest, key=lambda name: largest[name]))
    value, limit = largest[layer], LARGEST / ROOM
    detail = f"layers reach {value:.3g} ({layer}); float16 holds {LARGEST:,.0f}"
    return Level.judged("range", value <= limit, {"largest": value}, {"largest": limit}, detail)


def clipped_counts(
    content: bytes, floats: bytes, images: NDArray[np.uint8], *, progress: Progress
) -> dict[str, tuple[int, int]]:
    """How many of each rounded tensor's values the ranges of the int8 file `content` clip, and how many there are.

    The values are those of the float32 file `floats` over `images` (N, S, S, 3).
    """
    ranges = stored_ranges(content)
    outside, seen = dict.fromkeys(ranges, 0), dict.fromkeys(ranges, 0)
    for values in observe(floats, list(ranges), images, title="looking at ranges", progress=progress):
        for name, value in values.items():
            low, high = ranges[name]
            inside = (value >= low) & (value <= high)  # which a NaN is not
            outside[name] += int(inside.size - inside.sum())
            seen[name] += inside.size
    return {name: (outside[name], seen[name]) for name in ranges if seen[name]}


def stored_ranges(content: bytes) -> dict[str, tuple[float, float]]:
    """The least and largest value of each rounded tensor of an int8 file, with half a step of rounding beyond."""
    graph = onnx.load_model_from_string(content).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = float(constants[node.input[1]]), constants[node.input[2]]
            numbers = np.iinfo(zero.dtype)
            low, high = (edge - int(zero) + beyond for edge, beyond in ((numbers.min, -0.5), (numbers.max, 0.5)))
            found[node.input[0]] = (low * scale, high * scale)
    return found


def judge_clipping(counts: dict[str, tuple[int, int]]) -> Level:
    """Whether the ranges hold nearly all of what the layers answer. Nothing looked at has not passed."""
    if not counts:
        return Level.failed("range", "no layer was looked at")
    layer = max(counts, key=lambda name: (counts[name][0] - FEW) / counts[name][1])
    outside, seen = counts[layer]
    detail = f"{outside:,} of {seen:,} values of {layer} are clipped, the most of a layer"
    limits = {"clipped": MOST_CLIPPED * seen + FEW}
    return Level.judged("range", outside <= limits["clipped"], {"clipped": outside, "values": seen}, limits, detail)
