from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tinyres.data.batches import TrainingBatches
from tinyres.data.dataset import Split
from tinyres.recipes import DEMO
from tinyres.spec import Preprocess

PREPROCESS = Preprocess(image_size=8)
RECIPE = replace(DEMO, batch_size=4, image_size=8, crop_padding=0, flip=False)


def batches(*, seed: int = 0) -> TrainingBatches:
    images = np.zeros((10, 8, 8, 3), dtype=np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None]
    split = Split(images=images, labels=np.arange(10))
    return TrainingBatches(split, RECIPE, PREPROCESS, seed=seed, device=torch.device("cpu"))


def test_every_picture_comes_once_an_epoch_with_its_label_and_in_another_order_each_time() -> None:
    source = batches()
    assert source.per_epoch == 3
    orders = []
    for epoch in range(2):
        parts = [source.batch(epoch * 3 + step) for step in range(3)]
        assert [len(labels) for _, labels in parts] == [4, 4, 2]
        labels = torch.cat([labels for _, labels in parts])
        values = torch.cat([inputs[:, 0, 0, 0] for inputs, _ in parts])
        pixels = values * PREPROCESS.std[0] * 255 + PREPROCESS.mean[0] * 255
        assert torch.equal(pixels.round().long(), labels)
        assert sorted(labels.tolist()) == list(range(10))
        orders.append(labels.tolist())
    assert orders[0] != orders[1]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forward = [batches().batch(step)[1].tolist() for step in range(6)]
    source = batches()
    backward = [source.batch(step)[1].tolist() for step in reversed(range(6))]
    assert forward == backward[::-1]
    assert forward != [batches(seed=1).batch(step)[1].tolist() for step in range(6)]
