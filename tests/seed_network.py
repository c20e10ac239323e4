"""The seed's network, written from its description alone: what `tinyres import` is tested and fuzzed with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeedBlock(nn.Module):
    """conv, BN, ReLU, conv, BN; the skip is a biased 1x1 conv without BN."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.sequence = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1),
            nn.BatchNorm2d(after),
        )
        if stride != 1:
            self.skip = nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.skip(x) if hasattr(self, "skip") else x
        return torch.relu(self.sequence(x) + skipped)


class SeedStage(nn.Module):
    def __init__(self, before: int, after: int, count: int, stride: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            SeedBlock(before, after, stride), *(SeedBlock(after, after, 1) for _ in range(count - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class SeedNetwork(nn.Module):
    def __init__(self, classes: int, blocks: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, widths[0], 3, 1, 1), nn.BatchNorm2d(widths[0]), nn.ReLU())
        before = widths[0]
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=2):
            setattr(self, f"conv{number}_x", SeedStage(before, width, count, 1 if number == 2 else 2))
            before = width
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for number in range(2, 6):
            x = getattr(self, f"conv{number}_x")(x)
        result: Tensor = self.linear(x.mean(dim=(2, 3)))
        return result


def seed_network(
    classes: int = 7, blocks: tuple[int, ...] = (1, 2, 1, 2), widths: tuple[int, ...] = (8, 16, 24, 32)
) -> SeedNetwork:
    """With random weights and batch norm statistics far from 0 and 1."""
    torch.manual_seed(3)
    network = SeedNetwork(classes, blocks, widths)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
    return network.eval()
