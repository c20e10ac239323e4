"""Weights with their ModelSpec, and the whole state of a run to go on from: safetensors files, written atomically.

Reading one executes nothing and allocates no more than the file holds. Everything but tensors is one JSON text in the
header (safetensors writes several metadata entries in random order; one keeps equal checkpoints byte-equal).
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinyres import records
from tinyres.errors import CheckpointError, StorageError, missing_extra
from tinyres.files import atomic_path, read_whole
from tinyres.header import KEY, CheckpointHeader, Origin, read_header
from tinyres.model import ResNet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tinyres.spec import ModelSpec


MAX_BYTES = 8 * 2**30
"""A longer file is refused: weights, optimizer and averages of a ResNet-34 take 0.3 GB."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights read from a file."""

    spec: ModelSpec
    origin: Origin
    tensors: Mapping[str, Tensor]
    sha256: str
    """Of the file."""

    def model(self) -> ResNet:
        """A model with these weights, in evaluation mode. Errors: CheckpointError if they do not fit the spec."""
        if reason := misfit(self.spec, self.tensors):
            raise CheckpointError(f"the weights do not fit their own spec: {reason}")
        model = ResNet(self.spec)
        model.load_state_dict(dict(self.tensors), strict=True)
        return model.eval()


def misfit(spec: ModelSpec, tensors: Mapping[str, Tensor]) -> str:
    """What keeps weights from being those of `spec`; empty if nothing does."""
    # On the meta device, which takes no memory: a file may claim any number of weights.
    with torch.device("meta"):
        model = ResNet(spec)
    try:
        model.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as exc:
        heading, *reasons = str(exc).splitlines()
        return (reasons or [heading])[0].strip()
    return ""


def save_weights(path: Path, model: ResNet, spec: ModelSpec, origin: Origin) -> None:
    """Write a model's weights and spec to `path`. Errors: StorageError."""
    save_tensors(path, model.state_dict(), spec, origin)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], spec: ModelSpec, origin: Origin) -> None:
    """Write weights under this network's names with their spec to `path`. Errors: StorageError."""
    _write(path, dict(tensors), records.to_json(CheckpointHeader(spec, origin), indent=None))


def load_weights(path: Path) -> Checkpoint:
    """Read weights and spec. Errors: CheckpointError if it is not a checkpoint of ours."""
    text, tensors, sha256 = _read(path)
    header = records.from_json(CheckpointHeader, text, source=f"the header of {path}", error=CheckpointError)
    return Checkpoint(spec=header.spec, origin=header.origin, tensors=tensors, sha256=sha256)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a tree of dicts, lists, plain values and tensors, such as optimizer states. Errors: StorageError."""
    tensors: dict[str, Tensor] = {}
    tree = _without_tensors(state, "", tensors)
    _write(path, tensors, json.dumps(tree, allow_nan=False))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Errors: CheckpointError."""
    text, tensors, _ = _read(path)
    try:
        tree = _with_tensors(json.loads(text), tensors)
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise CheckpointError(f"{path} is not a training state") from exc
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} is not a training state")
    return tree


def _write(path: Path, tensors: Mapping[str, Tensor], header: str) -> None:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as exc:
        raise missing_extra("writing a checkpoint", "safetensors", "train") from exc

    # Contiguous in logical order whatever the memory format, and apart from tensors that share storage.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata={KEY: header})
        except SafetensorError as exc:  # what it makes of a full disk
            raise StorageError(f"cannot write {path}: {exc}") from exc


def _read(path: Path) -> tuple[str, dict[str, Tensor], str]:
    """Header text, tensors and SHA-256, all of the same bytes: a training may replace the file meanwhile."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as exc:
        raise missing_extra("reading a checkpoint", "safetensors", "train") from exc

    hint = "for the seed's .pth use `tinyres import FILE.pth`"
    if not path.exists():
        raise CheckpointError(f"there is no file {path}")
    content = read_whole(path, MAX_BYTES, error=CheckpointError)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as exc:
        raise CheckpointError(f"{path} is not a checkpoint: {exc}", hint=hint) from exc
    found = read_header(io.BytesIO(content))
    if found is None:
        raise CheckpointError(f"{path} is a safetensors file without a tinyres header", hint=hint)
    return found[0], tensors, hashlib.sha256(content).hexdigest()


def _without_tensors(node: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        while place in tensors:  # as of the keys 1 and "1"
            place += "'"
        tensors[place] = node
        return {"$tensor": place}
    if isinstance(node, dict):
        # JSON has no integer keys, and optimizer states have them: pairs keep the type.
        return {"$dict": [[key, _without_tensors(value, f"{place}/{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [_without_tensors(value, f"{place}/{index}", tensors) for index, value in enumerate(node)]
    return node


def _with_tensors(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(node, dict):
        if "$tensor" in node:
            return tensors[node["$tensor"]]
        return {key: _with_tensors(value, tensors) for key, value in node["$dict"]}
    if isinstance(node, list):
        return [_with_tensors(value, tensors) for value in node]
    return node


def same_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
