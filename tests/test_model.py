from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from tinyres.model import SkipConv, build_model
from tinyres.spec import ModelSpec


def spec(classes: int = 200, **fields: object) -> ModelSpec:
    names = tuple(f"c{index}" for index in range(classes))
    return ModelSpec(class_names=names, class_ids=names, **fields)


@pytest.fixture(scope="module")
def resnet34() -> nn.Module:
    return build_model(spec()).eval()


def test_the_default_is_resnet34_for_small_images_to_the_parameter(resnet34: nn.Module) -> None:
    assert sum(parameter.numel() for parameter in resnet34.parameters()) == 21_379_592


def test_every_stage_after_the_first_halves_the_picture(resnet34: nn.Module) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [
        getattr(resnet34, name).register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes.update({name: tuple(output.shape)})
        )
        for name in ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    ]
    with torch.inference_mode():
        resnet34(torch.zeros(2, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert shapes == {
        "conv1": (2, 64, 64, 64),
        "layer1": (2, 64, 64, 64),
        "layer2": (2, 128, 32, 32),
        "layer3": (2, 256, 16, 16),
        "layer4": (2, 512, 8, 8),
        "fc": (2, 200),
    }


def test_an_image_costs_464_giga_multiplications(resnet34: nn.Module) -> None:
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        elif isinstance(module, nn.Linear):
            total += module.in_features * module.out_features

    hooks = [module.register_forward_hook(count) for module in resnet34.modules()]
    with torch.inference_mode():
        resnet34(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert round(total / 1e9, 2) == 4.64


def test_smaller_networks_come_from_the_same_spec() -> None:
    model = build_model(spec(10, blocks=(1, 2), widths=(8, 24), dropout=0.0))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert len(model.layer2) == 2


def test_both_initialisations_follow_the_seed_and_differ() -> None:
    weights = {}
    for init in ("torch", "kaiming"):
        for attempt in range(2):
            torch.manual_seed(5)
            weights[init, attempt] = build_model(spec(2, blocks=(1,), widths=(8,)), init=init).conv1.weight
    assert torch.equal(weights["torch", 0], weights["torch", 1])
    assert torch.equal(weights["kaiming", 0], weights["kaiming", 1])
    assert not torch.equal(weights["torch", 0], weights["kaiming", 0])


@pytest.mark.parametrize("size", [7, 8])
def test_a_skip_gives_what_a_strided_convolution_gives(size: int) -> None:
    torch.manual_seed(0)
    skip, plain = SkipConv(5, 9, 2), nn.Conv2d(5, 9, 1, stride=2, bias=False)
    plain.load_state_dict(skip.state_dict())
    features = torch.randn(2, 5, size, size)
    assert torch.allclose(skip(features), plain(features), atol=1e-6)


def test_a_narrow_network_trains_on_large_pictures_without_a_crash() -> None:
    # In a process of its own: what this guards against ends the process, or damages its memory unseen.
    program = """
import torch
from tinyres.model import SkipConv, build_model
from tinyres.spec import ModelSpec
spec = ModelSpec(class_names=("a", "b"), class_ids=("1", "2"), blocks=(1, 1), widths=(8, 16))
model = build_model(spec).to(memory_format=torch.channels_last)
for _ in range(3):
    images = torch.randn(16, 64, 64, 3).permute(0, 3, 1, 2)
    model(images).sum().backward()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
