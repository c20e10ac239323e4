"""The network: torchvision's basic blocks with a stem and head for small images, built from a ModelSpec.

The names of its weights are torchvision's. It takes normalised NCHW floats; `data.augment.normalize` makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

if TYPE_CHECKING:
    from tinyres.spec import ModelSpec

ONEDNN_BLOCK = 16
Init = Literal["torch", "kaiming"]


class ResNet(nn.Module):
    """A 3x3 stride-1 stem without max-pool, stages of basic blocks (each after the first halves), pool, dropout, fc.

    (N, 3, S, S) float32 to logits (N, classes). With the default spec this is ResNet-34: 21,379,592 parameters at 200
    classes, 4.64 GMAC an image of 64x64.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        channels = spec.widths[0]
        self.conv1 = nn.Conv2d(3, channels, 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.stages: list[str] = []
        for number, (blocks, width) in enumerate(zip(spec.blocks, spec.widths, strict=True), start=1):
            stage = _stage(channels, width, blocks, stride=1 if number == 1 else 2)
            self.add_module(f"layer{number}", stage)
            self.stages.append(f"layer{number}")
            channels = width
        self.dropout = nn.Dropout(spec.dropout)
        self.fc = nn.Linear(channels, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        features = self.relu(self.bn1(self.conv1(images)))
        for stage in self.stages:
            features = getattr(self, stage)(features)
        pooled = features.mean(dim=(2, 3))
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits


class SkipConv(nn.Conv2d):
    """The 1x1 convolution of a skip; odd numbers of channels on a CPU pick every second pixel first, then go densely.

    The values are the same. oneDNN 3.12 writes past its memory in the backward pass of strided 1x1 convolutions whose
    channels do not fill its blocks of 16, in channels-last order (docs/decisions/0008-skips-on-a-cpu.md).
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(channels, width, 1, stride=stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, width, ceil(H / stride), ceil(W / stride))."""
        if features.device.type != "cpu" or self.in_channels % ONEDNN_BLOCK == 0:
            return super().forward(features)
        step = self.stride[0]
        return functional.conv2d(features[:, :, ::step, ::step], self.weight)


def _stage(channels: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    downsample = None
    if stride != 1 or channels != width:
        downsample = nn.Sequential(SkipConv(channels, width, stride), nn.BatchNorm2d(width))
    first = BasicBlock(channels, width, stride, downsample)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))


def build_model(spec: ModelSpec, *, init: Init = "kaiming", zero_init_residual: bool = False) -> ResNet:
    """A model of `spec` with fresh weights from torch's global generator.

    `kaiming` is torchvision's choice for ResNets (fan-out, He et al. 2015), `torch` the layers' own default, which the
    seed used. `zero_init_residual` makes each block start as its skip (Goyal et al. 2017).
    """
    model = ResNet(spec)
    if init == "kaiming":
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if zero_init_residual:
        for module in model.modules():
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
    return model


def pick_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
