from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyres.data.augment import crop_and_flip, normalize
from tinyres.spec import Preprocess


@given(seed=st.integers(0, 2**31), padding=st.integers(0, 5), flip=st.booleans(), size=st.integers(3, 9))
@settings(max_examples=50, deadline=None)
def test_every_result_is_a_shifted_picture_over_black_mirrored_or_not(
    seed: int, padding: int, flip: bool, size: int
) -> None:
    pixels = np.random.default_rng(seed).integers(1, 256, (4, size, size, 3), dtype=np.uint8)
    result = crop_and_flip(
        torch.from_numpy(pixels), padding=padding, flip=flip, generator=torch.Generator().manual_seed(seed)
    ).numpy()
    for before, after in zip(pixels, result, strict=True):
        padded = np.pad(before, ((padding, padding), (padding, padding), (0, 0)))
        crops = [
            padded[top : top + size, left : left + size]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        ]
        candidates = crops + ([crop[:, ::-1] for crop in crops] if flip else [])
        assert any((candidate == after).all() for candidate in candidates)


def test_every_shift_and_both_directions_come_equally_often() -> None:
    marked = np.zeros((1, 5, 5, 3), dtype=np.uint8)
    marked[0, 2, 1] = 255  # left of the middle, so that a mirror shows
    many = torch.from_numpy(np.repeat(marked, 20_000, axis=0))
    result = crop_and_flip(many, padding=1, flip=True, generator=torch.Generator().manual_seed(0)).numpy()
    rows, columns = np.nonzero(result[..., 0])[1:]
    assert np.bincount(rows, minlength=5)[1:4] / 20_000 == pytest.approx([1 / 3] * 3, abs=0.02)
    # Column 1 shifted by -1..1 gives 0..2; mirrored, 2..4: 2 twice as often.
    assert np.bincount(columns, minlength=5) / 20_000 == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6], abs=0.02)


def test_normalize_equals_the_textbook_formula_in_float64() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    preprocess = Preprocess(image_size=8)
    wanted = (pixels / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    result = normalize(torch.from_numpy(pixels), preprocess)
    assert result.shape == (2, 3, 4, 4)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(result.numpy(), wanted.transpose(0, 3, 1, 2), atol=2e-6)
