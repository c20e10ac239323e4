"""The optimizer a recipe asks for: SGD over groups of weights that differ in weight decay and learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from tinyres.model import ResNet
    from tinyres.recipes import Recipe

HEAD = "fc."
"""What the names of the classifier's weights begin with."""


def make_optimizer(model: ResNet, recipe: Recipe) -> torch.optim.SGD:
    """SGD over `model`, fused into one pass over memory. Each group has a `share` of the run's learning rate."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        share = 1.0 if name.startswith(HEAD) else recipe.backbone_lr
        decays = recipe.decay_norm_and_bias or weight.ndim > 1
        groups.setdefault((share, recipe.weight_decay if decays else 0.0), []).append(weight)
    return torch.optim.SGD(
        [{"params": weights, "share": share, "weight_decay": decay} for (share, decay), weights in groups.items()],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def restore_optimizer(optimizer: torch.optim.SGD, state: dict[str, Any]) -> None:
    """Load what `state_dict` gave, each momentum laid out in memory like its weight.

    The fused update walks both as they lie: a momentum in another order would silently belong to other weights.
    """
    optimizer.load_state_dict(state)
    for weight, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                kept[name] = torch.empty_like(weight).copy_(value)


def set_learning_rate(optimizer: torch.optim.SGD, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
