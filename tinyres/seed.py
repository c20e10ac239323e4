"""The original project's weights: a bare state dict of the same network, with conv biases and no BN in the skips.

Both differences map exactly onto this network in evaluation: a bias before a batch norm moves into its running mean,
and a biased skip conv becomes a conv and a batch norm that does nothing but add the bias.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinyres.errors import CheckpointError, suggest_file

if TYPE_CHECKING:
    from pathlib import Path

BN_EPS = 1e-5
"""torch's default, which both networks use."""
_BLOCK = re.compile(r"conv([2-5])_x\.net\.(\d+)\.(sequence\.([0134])|skip)\.(\w+)")
_LAYERS = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Load a `.pth` of tensors only; nothing in the file is executed. Errors: CheckpointError."""
    try:
        _refuse_bomb(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise CheckpointError(f"there is no file {path}", hint=suggest_file(path)) from exc
    except CheckpointError:
        raise
    # torch's own unpickler raises whatever foreign bytes lead it to: IndexError, RuntimeError, UnpicklingError, ...
    except Exception as exc:
        reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
        raise CheckpointError(
            f"{path} is not a state dict that loads safely: {reason}",
            hint="expected what torch.save(model.state_dict(), FILE) writes",
        ) from exc
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} holds {type(state).__name__} of other things than tensors; valid: a bare state dict",
            hint="save model.state_dict() alone",
        )
    claimed = sum(value.numel() * value.element_size() for value in state.values())
    if claimed > path.stat().st_size:  # a view that repeats one number a million times, say
        raise CheckpointError(f"{path} claims {claimed:,} bytes of weights, and is smaller")
    # torch.compile and DataParallel wrap the module and prefix its names.
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", str(key)): value for key, value in state.items()}


def _refuse_bomb(path: Path) -> None:
    """Torch inflates what a packed `.pth` claims to hold; its own are not packed. Errors: CheckpointError; OSError."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
        if claimed > path.stat().st_size:
            raise CheckpointError(f"{path} inflates to {claimed:,} bytes", hint="save it with torch.save")


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
    stages: dict[int, set[int]] = {}
    for key in state:
        if match := re.match(r"layer(\d+)\.(\d+)\.", key):
            stages.setdefault(int(match[1]), set()).add(int(match[2]))
    try:
        numbers = range(1, max(stages) + 1)
        widths = tuple(int(state[f"layer{number}.0.conv1.weight"].shape[0]) for number in numbers)
        blocks = tuple(len(stages[number]) for number in numbers)
        return blocks, widths, int(state["fc.weight"].shape[0])
    except (KeyError, ValueError, IndexError) as exc:
        raise CheckpointError(f"{place} is not the seed's network: {exc} is missing") from exc


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
    raise CheckpointError(
        f"{place} is not the seed's: it holds {key!r}", hint="expected conv1.*, conv2_x..conv5_x.net.*, linear.*"
    )
