from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional

from tinyres.data.augment import Moves, move_on_device, move_on_host, normalize
from tinyres.spec import Preprocess


def moved(pixels: np.ndarray, *, padding: int, flip: bool, seed: int, on_device: bool) -> np.ndarray:
    moves = Moves.draw(len(pixels), padding=padding, flip=flip, generator=torch.Generator().manual_seed(seed))
    if on_device:
        return move_on_device(torch.from_numpy(pixels), moves).numpy()
    return move_on_host(pixels, np.arange(len(pixels)), moves).numpy()


@given(seed=st.integers(0, 2**31), padding=st.integers(0, 9), flip=st.booleans(), size=st.integers(3, 9))
@settings(max_examples=60, deadline=None)
def test_every_result_is_a_shifted_picture_over_black_mirrored_or_not(
    seed: int, padding: int, flip: bool, size: int
) -> None:
    pixels = np.random.default_rng(seed).integers(1, 256, (4, size, size, 3), dtype=np.uint8)
    result = moved(pixels, padding=padding, flip=flip, seed=seed, on_device=False)
    assert (result == moved(pixels, padding=padding, flip=flip, seed=seed, on_device=True)).all()
    for before, after in zip(pixels, result, strict=True):
        padded = np.pad(before, ((padding, padding), (padding, padding), (0, 0)))
        crops = [
            padded[top : top + size, left : left + size]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        ]
        candidates = crops + ([crop[:, ::-1] for crop in crops] if flip else [])
        assert any((candidate == after).all() for candidate in candidates)


@pytest.mark.parametrize("on_device", [False, True])
def test_every_shift_and_both_directions_come_equally_often(on_device: bool) -> None:
    marked = np.zeros((1, 5, 5, 3), dtype=np.uint8)
    marked[0, 2, 1] = 255  # left of the middle, so that a mirror shows
    result = moved(np.repeat(marked, 20_000, axis=0), padding=1, flip=True, seed=0, on_device=on_device)
    rows, columns = np.nonzero(result[..., 0])[1:]
    assert np.bincount(rows, minlength=5)[1:4] / 20_000 == pytest.approx([1 / 3] * 3, abs=0.02)
    # Column 1 shifted by -1..1 gives 0..2; mirrored, 2..4: 2 twice as often.
    assert np.bincount(columns, minlength=5) / 20_000 == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6], abs=0.02)


def test_the_same_moves_by_torchvision_give_the_same_floats() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    preprocess = Preprocess(image_size=16)
    moves = Moves.draw(6, padding=4, flip=True, generator=torch.Generator().manual_seed(1))
    ours = normalize(move_on_host(pixels, np.arange(6), moves), preprocess)
    for number, image in enumerate(pixels):
        theirs = functional.pad(functional.to_tensor(image), [4, 4, 4, 4])
        theirs = functional.crop(theirs, int(moves.top[number]), int(moves.left[number]), 16, 16)
        theirs = functional.hflip(theirs) if moves.mirrored[number] else theirs
        theirs = functional.normalize(theirs, list(preprocess.mean), list(preprocess.std))
        assert torch.allclose(ours[number], theirs, atol=2e-6)


def test_normalize_equals_the_textbook_formula_in_float64() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    preprocess = Preprocess(image_size=8)
    wanted = (pixels / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    result = normalize(torch.from_numpy(pixels), preprocess)
    assert result.shape == (2, 3, 4, 4)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(result.numpy(), wanted.transpose(0, 3, 1, 2), atol=2e-6)
