from __future__ import annotations

import numpy as np

from tinyres.data import shapes


def test_a_picture_is_the_same_every_time_and_unlike_its_neighbours() -> None:
    first = shapes.render("train", 3)
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert (first == shapes.render("train", 3)).all()
    for other in (shapes.render("train", 13), shapes.render("val", 3), shapes.render("golden", 3)):
        assert (first != other).any()


def test_every_split_holds_its_classes_evenly() -> None:
    for count in shapes.SIZES.values():
        labels = [shapes.label_of(index) for index in range(count)]
        assert set(np.bincount(labels)) == {count // len(shapes.CLASSES)}


def test_pictures_of_every_allowed_size_can_be_drawn() -> None:
    for size in (8, 15, 16, 47, 512):
        assert shapes.render("golden", size, size).shape == (size, size, 3)
