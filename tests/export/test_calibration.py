"""Ranges from pictures: what is counted, and what each method makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from tiny import checkpoint_of, small_spec

from tinyres.data.augment import normalize
from tinyres.errors import CheckpointError
from tinyres.export.calibration import BINS, METHODS, Histogram, entropy, least_squares, measure, percentile, whole
from tinyres.export.onnx import float_model, onnx_from_checkpoint
from tinyres.export.quantize import Range, grid
from tinyres.progress import Silent


def histogram_of(values: NDArray[np.float64]) -> Histogram:
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, BINS, (low, high) if high > low else (low, low + 1))
    return Histogram(counts.astype(np.float64), low, high, np.zeros(1))


def test_histograms_are_of_pytorchs_values() -> None:
    checkpoint, model = checkpoint_of(small_spec())
    images = np.random.default_rng(0).integers(0, 256, (19, 16, 16, 3), dtype=np.uint8)
    seen: list[torch.Tensor] = []
    model.bn1.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    with torch.inference_mode():
        model(normalize(torch.from_numpy(images), checkpoint.spec.preprocess))
    exact = seen[0].double().numpy()
    found = measure(onnx_from_checkpoint(checkpoint), ["conv1"], images, progress=Silent())["conv1"]
    assert (found.low, found.high) == pytest.approx((exact.min(), exact.max()), rel=1e-5)
    np.testing.assert_allclose(found.means, exact.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert found.counts.sum() == exact.size
    counts, _ = np.histogram(exact, BINS, (found.low, found.high))
    assert np.abs(np.cumsum(counts) - np.cumsum(found.counts)).max() <= 3  # at the edges of bins


def test_a_layer_that_answers_nan_has_no_range() -> None:
    checkpoint, _ = checkpoint_of(small_spec())
    model = float_model(checkpoint)
    for tensor in model.graph.initializer:
        if tensor.name == "conv1.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
    images = np.zeros((3, 16, 16, 3), np.uint8)
    with pytest.raises(CheckpointError, match="the layer conv1 answers NaN"):
        measure(model.SerializeToString(), ["conv1"], images, progress=Silent())


@given(st.integers(0, 10_000), st.sampled_from(sorted(METHODS)), st.booleans(), st.booleans(), st.floats(-30, 30))
def test_every_method_stays_within_what_was_seen(
    seed: int, method: str, positive: bool, symmetric: bool, exponent: float
) -> None:
    values = np.random.default_rng(seed).standard_t(4, 3000) * 2.0**exponent
    values = np.maximum(values, 0) if positive else values
    histogram = histogram_of(values)
    found = METHODS[method](histogram, symmetric=symmetric)
    slack = 1e-6 * (histogram.high - histogram.low)
    assert histogram.low - slack <= found.low <= found.high <= histogram.high + slack
    assert found.high > 0
    if positive:
        assert found.low == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tensor_that_is_always_the_same_has_a_range_that_holds_it(method: str, value: float, symmetric: bool) -> None:
    found = METHODS[method](histogram_of(np.full(100, value)), symmetric=symmetric)
    assert min(found.low, 0) <= value <= max(found.high, 0)


def test_percentiles_cut_as_numpys_do() -> None:
    values = np.random.default_rng(0).normal(size=1_000_000)
    found = percentile(histogram_of(values), 0.999, symmetric=False)
    wanted = np.quantile(values, [0.0005, 0.9995])
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=2 * (values.max() - values.min()) / BINS)


def squared_error(values: NDArray[np.float64], within: Range, *, symmetric: bool) -> float:
    """Of what ONNX's operators make of the values, by their definition, with the parameters that we would store."""
    step, zero, _, _ = grid(within, symmetric=symmetric)
    lowest, highest = (-128, 127) if symmetric else (0, 255)
    rounded = (np.clip(np.rint(values / step) + zero, lowest, highest) - zero) * step
    return float(((rounded - values) ** 2).mean())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_least_squares_leaves_no_better_scaled_range(positive: bool, symmetric: bool) -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=100_000), [-40.0, 50.0]])
    values = np.maximum(values, 0) if positive else values
    histogram = histogram_of(values)
    best = squared_error(values, least_squares(histogram, symmetric=symmetric), symmetric=symmetric)
    whole_range = whole(histogram, symmetric=symmetric)
    others = [Range(part * whole_range.low, part * whole_range.high) for part in np.linspace(0.2, 1, 60)]
    assert best <= 1.02 * min(squared_error(values, other, symmetric=symmetric) for other in others)
    assert best < 0.97 * squared_error(values, whole_range, symmetric=symmetric)


def test_what_is_clipped_is_counted() -> None:
    values = np.arange(-500, 500) / 100
    assert histogram_of(values).clipped(Range(-5, 5)) == 0
    assert histogram_of(values).clipped(Range(-4, 5)) == pytest.approx(0.1, abs=0.002)
    assert histogram_of(values).clipped(Range(1, 4)) == pytest.approx(0.6, abs=0.003)  # 0 is always inside


def test_entropy_clips_a_long_tail_and_leaves_an_even_spread_alone() -> None:
    rng = np.random.default_rng(0)
    even = entropy(histogram_of(rng.uniform(0, 1, 200_000)), symmetric=False)
    assert even.high > 0.98
    tail = np.concatenate([np.abs(rng.normal(size=200_000)), [100.0]])
    assert 3 < entropy(histogram_of(tail), symmetric=False).high < 30


def test_entropy_is_not_misled_by_the_zeros_of_relu() -> None:
    values = np.maximum(np.random.default_rng(0).normal(size=200_000), 0)
    assert entropy(histogram_of(values), symmetric=False).high > 2
