from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tinyres.data.batches import TrainingBatches
from tinyres.data.dataset import Split
from tinyres.errors import UsageError
from tinyres.recipes import DEMO, Recipe
from tinyres.spec import ModelSpec, Preprocess

NAMES = tuple(f"class {number}" for number in range(10))
PREPROCESS = Preprocess(image_size=8)
SPEC = ModelSpec(class_names=NAMES, class_ids=NAMES, blocks=(1, 1), widths=(8, 16), preprocess=PREPROCESS)
RECIPE = replace(DEMO, batch_size=4, image_size=8, crop_padding=0, flip="off")
CPU = torch.device("cpu")


def batches(*, seed: int = 0, recipe: Recipe = RECIPE, rank: int = 0, processes: int = 1) -> TrainingBatches:
    images = np.zeros((10, 8, 8, 3), dtype=np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None]
    split = Split(images=images, labels=np.arange(10))
    return TrainingBatches(split, SPEC, recipe, seed=seed, device=CPU, rank=rank, processes=processes)


def test_every_picture_comes_once_an_epoch_with_its_label_and_in_another_order_each_time() -> None:
    source = batches()
    assert source.per_epoch == 3
    orders = []
    for epoch in range(2):
        parts = [source.batch(epoch * 3 + step) for step in range(3)]
        assert [(len(part.labels), part.total) for part in parts] == [(4, 4), (4, 4), (2, 2)]
        labels = torch.cat([part.labels for part in parts])
        values = torch.cat([part.inputs[:, 0, 0, 0] for part in parts])
        pixels = values * PREPROCESS.std[0] * 255 + PREPROCESS.mean[0] * 255
        assert torch.equal(pixels.round().long(), labels)
        assert sorted(labels.tolist()) == list(range(10))
        orders.append(labels.tolist())
    assert orders[0] != orders[1]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forward = [batches().batch(step).labels.tolist() for step in range(6)]
    source = batches()
    backward = [source.batch(step).labels.tolist() for step in reversed(range(6))]
    assert forward == backward[::-1]
    assert forward != [batches(seed=1).batch(step).labels.tolist() for step in range(6)]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_batch_without_gap_or_overlap_and_see_the_same_pixels(processes: int) -> None:
    recipe = replace(RECIPE, batch_size=7, crop_padding=2, flip="random")
    alone = batches(recipe=recipe)
    together = [batches(recipe=recipe, rank=rank, processes=processes) for rank in range(processes)]
    for step in range(4):
        whole, parts = alone.batch(step), [source.batch(step) for source in together]
        assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert {part.total for part in parts} == {whole.total}
        assert min(len(part.labels) for part in parts) > 0


def test_a_last_batch_too_small_for_the_processes_is_refused() -> None:
    with pytest.raises(UsageError, match="leave 1 for the last batch of an epoch, but 2 processes") as caught:
        batches(recipe=replace(RECIPE, batch_size=3), rank=0, processes=2)
    assert caught.value.hint == "--set batch_size=4, or another"


def test_one_picture_that_ends_in_one_value_is_refused_before_batch_norm_does() -> None:
    deep = replace(SPEC, blocks=(1, 1, 1, 1), widths=(8, 8, 8, 8))
    split = Split(images=np.zeros((10, 8, 8, 3), dtype=np.uint8), labels=np.arange(10))
    with pytest.raises(UsageError, match="batch norm needs two values") as caught:
        TrainingBatches(split, deep, replace(RECIPE, batch_size=3), seed=0, device=CPU)
    assert "--set batch_size=4" in str(caught.value.hint)
    TrainingBatches(split, deep, replace(RECIPE, batch_size=4), seed=0, device=CPU)


def test_alternating_flip_mirrors_each_picture_every_other_epoch() -> None:
    images = np.zeros((10, 8, 8, 3), dtype=np.uint8)
    images[:, :, 0] = 255  # a bright left edge
    split = Split(images=images, labels=np.arange(10))
    recipe = replace(RECIPE, flip="alternating")
    source = TrainingBatches(split, SPEC, recipe, seed=0, device=CPU)
    mirrored = []
    for epoch in range(4):
        sides = {}
        for step in range(3):
            part = source.batch(epoch * 3 + step)
            bright = part.inputs[:, 0, 0, 7] > part.inputs[:, 0, 0, 0]
            sides.update(zip(part.labels.tolist(), bright.tolist(), strict=True))
        mirrored.append([sides[label] for label in range(10)])
    assert 0 < sum(mirrored[0]) < 10
    assert mirrored[1] == [not side for side in mirrored[0]]
    assert mirrored[2:] == mirrored[:2]


def test_pictures_start_small_and_end_at_their_full_size() -> None:
    split = Split(images=np.zeros((10, 32, 32, 3), dtype=np.uint8), labels=np.arange(10))
    recipe = replace(RECIPE, image_size=32, epochs=5, start_scale=0.5, grow=(0.25, 0.75))
    source = TrainingBatches(split, SPEC, recipe, seed=0, device=CPU)
    assert [source.batch(epoch * 3).inputs.shape[-1] for epoch in range(5)] == [16, 16, 24, 32, 32]
    assert source.full_share == 4


def test_strong_augmentation_is_a_function_of_the_step_and_leaves_the_global_generator_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    split = Split(images=images, labels=np.arange(40) % 10)
    strong = replace(RECIPE, epochs=3, batch_size=40, image_size=16, trivial_augment=True, random_erasing=1.0)
    recipe = replace(strong, mix_share=1.0, mixup=0.2, cutmix=1.0, plain_epochs=1)
    source = TrainingBatches(split, SPEC, recipe, seed=0, device=CPU)
    torch.manual_seed(5)
    first = source.batch(0)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    again, other, plain = source.batch(0), source.batch(1), source.batch(2)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    assert first.targets.shape == (40, 10)
    assert torch.allclose(first.targets.sum(dim=1), torch.ones(40))
    assert other.inputs.shape == first.inputs.shape
    assert not torch.equal(other.inputs, first.inputs)
    assert torch.equal(plain.targets, plain.labels)
