"""The exponential moving average of a model in training: what is judged and kept where a recipe asks for it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from tinyres.model import ResNet


class Average:
    """The average of weights and batch norm statistics. It starts as the model it follows.

    torch's AveragedModel counts its updates in a tensor, which makes the host wait for a GPU at each of them; its
    arithmetic is used here without it.
    """

    def __init__(self, model: ResNet) -> None:
        self.model = copy.deepcopy(model).eval()
        self._followed = model

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Keep `decay` of the average and take the rest from the model."""
        mean, now = self.model.state_dict(), self._followed.state_dict()
        floating = [name for name, value in mean.items() if value.is_floating_point()]
        blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        blend([mean[name] for name in floating], [now[name] for name in floating], None)
        for name in mean.keys() - set(floating):  # the count of batches
            mean[name].copy_(now[name])
