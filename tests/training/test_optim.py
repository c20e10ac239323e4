from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TINY

from tinyres.model import ResNet, build_model
from tinyres.recipes import Recipe
from tinyres.spec import ModelSpec
from tinyres.training.optim import make_optimizer, restore_optimizer, set_learning_rate

NAMES = ("a", "b")
SPEC = ModelSpec(class_names=NAMES, class_ids=NAMES, blocks=(1, 1), widths=(16, 32), dropout=0.0)


def model() -> ResNet:
    torch.manual_seed(0)
    return build_model(SPEC).to(memory_format=torch.channels_last)


def group_of(optimizer: torch.optim.SGD, weight: torch.Tensor) -> dict[str, float]:
    return next(g for g in optimizer.param_groups if any(w is weight for w in g["params"]))


def test_weight_decay_spares_norms_and_biases_where_the_recipe_says_so() -> None:
    net = model()
    recipe = replace(TINY, weight_decay=0.01)
    everything = make_optimizer(net, recipe)
    spared = make_optimizer(net, replace(recipe, decay_norm_and_bias=False))
    for weight in (net.conv1.weight, net.fc.weight):
        assert group_of(spared, weight)["weight_decay"] == 0.01
    for weight in (net.bn1.weight, net.bn1.bias, net.fc.bias):
        assert group_of(spared, weight)["weight_decay"] == 0
        assert group_of(everything, weight)["weight_decay"] == 0.01
    counted = sum(len(group["params"]) for group in spared.param_groups)
    assert counted == len(list(net.parameters()))


def test_the_backbone_gets_its_share_of_the_learning_rate() -> None:
    net = model()
    optimizer = make_optimizer(net, replace(TINY, backbone_lr=0.1))
    set_learning_rate(optimizer, 0.5)
    assert group_of(optimizer, net.fc.weight)["lr"] == 0.5
    assert group_of(optimizer, net.fc.bias)["lr"] == 0.5
    assert group_of(optimizer, net.conv1.weight)["lr"] == pytest.approx(0.05)


def steps(net: ResNet, optimizer: torch.optim.SGD, count: int, *, since: int = 0) -> None:
    for number in range(since, since + count):
        inputs = torch.from_numpy(np.random.default_rng(number).normal(size=(4, 3, 16, 16)).astype(np.float32))
        optimizer.zero_grad()
        net(inputs.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()


def reference_sgd(recipe: Recipe, weight: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Nesterov's momentum as in Sutskever et al. 2013, in PyTorch's form, by hand."""
    velocity = np.zeros_like(weight)
    for gradient in gradients:
        decayed = gradient + recipe.weight_decay * weight
        velocity = recipe.momentum * velocity + decayed
        weight = weight - recipe.lr * (decayed + recipe.momentum * velocity)
    return weight


def test_the_update_is_nesterovs() -> None:
    recipe = replace(TINY, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    net = model().double()
    optimizer = make_optimizer(net, recipe)
    before = net.fc.weight.detach().numpy().copy()
    gradients = []
    for number in range(3):
        gradients.append(np.random.default_rng(number).normal(size=before.shape))
        for weight in net.parameters():
            weight.grad = torch.zeros_like(weight)
        net.fc.weight.grad = torch.from_numpy(gradients[-1])
        optimizer.step()
    assert net.fc.weight.detach().numpy() == pytest.approx(reference_sgd(recipe, before, gradients), abs=1e-12)


def test_a_restored_momentum_lies_in_memory_like_its_weight() -> None:
    """The fused update walks memory: a momentum in another order moves the wrong weights, without an error."""
    unbroken, broken = model(), model()
    first = make_optimizer(unbroken, TINY)
    second = make_optimizer(broken, TINY)
    steps(unbroken, first, 4)
    steps(broken, second, 2)
    state = second.state_dict()
    for entry in state["state"].values():
        entry["momentum_buffer"] = entry["momentum_buffer"].contiguous()  # as a checkpoint holds it
    third = make_optimizer(broken, TINY)
    restore_optimizer(third, state)
    steps(broken, third, 2, since=2)
    for name, weight in unbroken.state_dict().items():
        assert torch.equal(weight, broken.state_dict()[name]), name
