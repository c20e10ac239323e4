"""The original project's weights: a bare state dict of the same network, with conv biases and no BN in the skips.

Both differences map exactly onto this network in evaluation: a bias before a batch norm moves into its running mean,
and a biased skip conv becomes a conv and a batch norm that does nothing but add the bias.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinyres.errors import CheckpointError, suggest_file
from tinyres.files import read_whole
from tinyres.seed.state_dict import ITEM_BYTES, OLD_FORM, Pth, PthError, Weight, read_pth

if TYPE_CHECKING:
    from pathlib import Path

BN_EPS = 1e-5
"""torch's default, which both networks use."""
MOST_BYTES = 2 * 2**30
"""Of a file; the seed's own takes 86 MB."""
_DTYPES = {
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "Double": torch.float64,
    "Long": torch.int64,
}
_BLOCK = re.compile(r"conv([2-5])_x\.net\.(\d+)\.(sequence\.([0134])|skip)\.(\w+)")
_LAYERS = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth`, finite and on the CPU; nothing in the file is executed. Errors: CheckpointError."""
    content = _content(path)
    try:
        pth = read_pth(content)
        tensors = _tensors(path, pth, len(content))
    except CheckpointError:
        raise
    # Foreign bytes lead zipfile, pickletools and torch to errors of many kinds.
    except Exception as exc:
        reason = str(exc) if isinstance(exc, PthError) else type(exc).__name__
        raise CheckpointError(
            f"{path} is not a state dict that loads safely: {reason}",
            hint="expected what torch.save(model.state_dict(), FILE) writes",
        ) from exc
    for name, value in tensors.items():
        if found := _unfit(name, value):
            raise CheckpointError(
                f"{path} holds {found} in {name[:99]!r}; valid: finite numbers of floating point",
                hint="expected the weights of a network whose training went well",
            )
    # torch.compile and DataParallel wrap the module and prefix its names.
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", name): value for name, value in tensors.items()}


def _content(path: Path) -> bytes:
    try:
        content = read_whole(path, MOST_BYTES, error=CheckpointError)
    except CheckpointError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise CheckpointError(f"there is no file {path}", hint=suggest_file(path)) from exc
        raise
    if content.startswith(OLD_FORM):
        raise CheckpointError(
            f"{path} is in the form that torch.save wrote before PyTorch 1.6; valid: the zip that it writes now",
            hint="load it where you trust it, and save it again with torch.save",
        )
    return content


def _tensors(path: Path, pth: Pth, most: int) -> dict[str, Tensor]:
    state = pth.state
    if not isinstance(state, dict) or not all(isinstance(value, Weight) for value in state.values()):
        raise CheckpointError(
            f"{path} holds other things than tensors by name; valid: a bare state dict",
            hint="save model.state_dict() alone",
        )
    claimed = sum(weight.claimed for weight in state.values())
    if claimed > most:  # a view that repeats one number a million times, say
        raise CheckpointError(f"{path} claims {claimed:,} bytes of weights, and is smaller")
    return {name: _tensor(name, weight, pth.storages[weight.storage.key]) for name, weight in state.items()}


def _tensor(name: str, weight: Weight, storage: bytearray) -> Tensor:
    """A view of `storage`; torch itself may overflow on strides that are large enough."""
    kind = weight.storage.kind
    steps = zip(weight.shape, weight.strides, strict=True)
    last = weight.offset + sum((size - 1) * stride for size, stride in steps)
    if 0 in weight.shape or last >= len(storage) // ITEM_BYTES[kind]:
        raise PthError(f"{name[:99]!r} does not lie within its numbers")
    return torch.frombuffer(storage, dtype=_DTYPES[kind]).as_strided(weight.shape, weight.strides, weight.offset)


def _unfit(name: str, value: Tensor) -> str | None:
    if not value.is_floating_point():
        return None if name.endswith("num_batches_tracked") else "integers"
    return None if bool(value.isfinite().all()) else "NaN or infinity"


def convert(state: dict[str, Tensor], *, place: str = "the state dict") -> dict[str, Tensor]:
    """The seed's weights under this network's names: equal logits in evaluation mode.

    Errors: CheckpointError for missing or unknown names, or unfit shapes.
    """
    renamed = {_name_of(key, place): value for key, value in state.items()}
    result = {key: value.clone() for key, value in renamed.items()}
    for key in renamed:
        if not key.endswith(".bias"):
            continue
        layer = key.removesuffix(".bias")
        if layer.endswith("downsample.0"):
            bias = result.pop(key)
            result |= _adding_norm(layer.removesuffix("0") + "1", bias)
        elif layer.endswith(("conv1", "conv2")):
            bias = result.pop(key)
            mean = layer.replace("conv", "bn") + ".running_mean"
            if mean not in result or result[mean].shape != bias.shape:
                raise CheckpointError(f"{place} has no batch norm that fits {layer}")
            result[mean] = result[mean] - bias
    return result


def shape_of(
    state: dict[str, Tensor], *, place: str = "the state dict"
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(blocks, widths, classes) of a converted state dict. Errors: CheckpointError."""
    stages: dict[int, set[str]] = {}
    for key in state:
        if match := re.match(r"layer([1-4])\.(\d+)\.", key):
            stages.setdefault(int(match[1]), set()).add(match[2])
    numbers = range(1, max(stages, default=1) + 1)
    names = [*(f"layer{number}.0.conv1.weight" for number in numbers), "fc.weight"]
    for name in names:
        if name not in state or not state[name].shape:
            found = "has no dimension" if name in state else "is missing"
            raise CheckpointError(f"{place} is not the seed's network: {name} {found}")
    *widths, classes = (int(state[name].shape[0]) for name in names)
    return tuple(len(stages[number]) for number in numbers), tuple(widths), classes


def _adding_norm(name: str, bias: Tensor) -> dict[str, Tensor]:
    """A batch norm that adds `bias`: weight 1, variance 1 - eps, so that it divides by exactly 1."""
    return {
        f"{name}.weight": torch.ones_like(bias),
        f"{name}.bias": torch.zeros_like(bias),
        f"{name}.running_mean": -bias,
        f"{name}.running_var": torch.full_like(bias, 1 - BN_EPS),
        f"{name}.num_batches_tracked": torch.zeros((), dtype=torch.int64),
    }


def _name_of(key: str, place: str) -> str:
    if key.startswith("conv1.0."):
        return "conv1." + key.removeprefix("conv1.0.")
    if key.startswith("conv1.1."):
        return "bn1." + key.removeprefix("conv1.1.")
    if key.startswith("linear."):
        return "fc." + key.removeprefix("linear.")
    if match := _BLOCK.fullmatch(key):
        stage, block, part, position, leaf = match.groups()
        layer = "downsample.0" if part == "skip" else _LAYERS[position]
        return f"layer{int(stage) - 1}.{block}.{layer}.{leaf}"
    layout = "expected conv1.0.*, conv1.1.*, conv2_x..conv5_x.net.*, linear.*, as the original project saves them"
    if re.match(r"(conv1|bn1|layer\d\.\d+|fc)\.", key):
        layout += "; this is torchvision's own layout"
    raise CheckpointError(f"{place} is not the seed's: it holds {key[:99]!r}", hint=layout)
