"""Several processes training one model, started by torchrun: who this one is, and the few words they exchange.

With one process every word is free. Gradients are averaged by torch's DistributedDataParallel, not here.
"""

from __future__ import annotations

import datetime as dt
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import distributed, nn

from tinyres.environment import process_count, process_rank
from tinyres.errors import TrainingError
from tinyres.model import pick_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

T = TypeVar("T")

SILENCE_S = 1800.0
"""A process that answers nothing for so long counts as dead; a download before the first step may take as long."""
VOTE_EVERY_ON_GPU = 16
"""Asking the others makes the host wait for the device."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run, and this one among them."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls) -> World:
        """One process on the first GPU, or on the CPU where there is none."""
        return cls(0, 1, pick_device())

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process. All call it at the same step."""
        if self.size == 1:
            return list(flags)
        votes = torch.tensor([int(flag) for flag in flags], device=self.device)
        return [bool(vote) for vote in self.most(votes).tolist()]

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value

    def most(self, value: torch.Tensor) -> torch.Tensor:
        """The largest of a tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return value

    def first(self, value: T) -> T:
        """The first process's value."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's batch norm statistics: each has seen its own share of the pictures."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    def share_of(self, count: int) -> slice:
        """This process's part of `count` things."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def join_rows(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows of all processes, in order."""
        if self.size == 1:
            return rows
        parts: list[NDArray[np.float32]] = [rows] * self.size
        distributed.all_gather_object(parts, rows)
        return np.concatenate(parts)


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started.

    Errors: TrainingError if the others cannot be reached, or if one of them ends while this one works.
    """
    rank, size = process_rank(), process_count()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=dt.timedelta(seconds=SILENCE_S))
    except (RuntimeError, ValueError) as exc:
        raise TrainingError(f"cannot join the other {size - 1} processes: {_line(exc)}") from exc
    try:
        yield World(rank, size, device)
    except RuntimeError as exc:
        if not _is_about_others(exc):
            raise
        raise TrainingError(
            f"another process of this training ended or cannot be reached ({_line(exc)})",
            hint="start it again with --resume RUN: the last checkpoint is good",
        ) from exc
    else:
        # Only where all get here: NCCL waits for the others, who may not know that this one has failed.
        distributed.destroy_process_group()


def _is_about_others(exc: RuntimeError) -> bool:
    return isinstance(exc, distributed.DistError) or any(name in str(exc) for name in ("gloo", "NCCL", "by peer"))


def _line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
