"""Laws of scales, zero points, ranges and histograms, as properties."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qpipe.quant.calibration.histogram import Histogram
from qpipe.quant.calibration.reservoir import Reservoir
from qpipe.quant.calibration.statistics import TensorStatistics
from qpipe.quant.numbers import activation_parameters, dequantize, limits, quantize, weight_limit
from qpipe.quant.ranges import METHODS, RangeRule, clipped_share, find_range
from qpipe.quant.storage.weight_only import quantize_blocks
from qpipe.quant.weights.int8 import quantize_weight
from qpipe.records.quantization import WeightSpec

reals = st.floats(-1e6, 1e6, width=32)
matrices = arrays(np.float32, (4, 6), elements=st.floats(-100, 100, width=32))
vectors_ = arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e3, 1e3, width=32))
ends = st.tuples(st.floats(-1e6, 0), st.floats(0, 1e6))


def round_trip(values, scale, zero_point, dtype):
    return dequantize(quantize(values, np.array(scale), zero_point, dtype), np.array(scale), zero_point)


@given(ends, st.sampled_from(["uint8", "int8", "uint16", "int16"]), st.booleans())
def test_zero_is_exact_and_the_range_is_covered(range_, dtype, symmetric):
    low, high = range_
    scale, zero_point = activation_parameters(low, high, dtype, symmetric=symmetric)
    smallest, largest = limits(dtype)
    assert scale > 0
    assert smallest <= zero_point <= largest
    ends_ = dequantize(
        quantize(np.array([low, 0.0, high]), np.array(scale), zero_point, dtype), np.array(scale), zero_point
    )
    assert ends_[1] == 0.0
    np.testing.assert_allclose(ends_[[0, 2]], [low, high], atol=1.01 * scale, rtol=1e-5)
    if symmetric:
        assert zero_point == (0 if dtype.startswith("int") else (largest + 1) // 2)


@given(ends, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_rounding_error_is_at_most_half_a_step_inside_the_range(range_, places):
    low, high = range_
    scale, zero_point = activation_parameters(low, high, "uint8", symmetric=False)
    values = low + np.array(places) * (high - low)
    back = round_trip(values, scale, zero_point, "uint8")
    # half a step of rounding, and at the very ends half a step of the zero point's own rounding
    assert np.abs(back - values).max() <= scale * (1.0 + 1e-3) + 1e-12


@given(
    arrays(np.float32, (4, 6), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([7, 8]),
    st.sampled_from([None, 0, 1]),
)
def test_weights_round_to_the_nearest_step_and_keep_their_bits(array, bits, axis):
    found = quantize_weight(array, WeightSpec(tensor="w", dtype="int8", bits=bits, symmetric=True, axis=axis))
    assert found.scale.shape == (() if axis is None else (array.shape[axis],))
    assert np.abs(found.values.astype(int)).max(initial=0) <= 2 ** (bits - 1) - 1
    step = found.scale if axis is None else found.scale.reshape([-1 if place == axis else 1 for place in range(2)])
    assert (np.abs(found.real(axis) - array) <= 0.5 * step * (1 + 1e-4) + 1e-6).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_by_squared_error_are_those_of_each_channel_alone_and_never_worse_than_by_the_largest(axis):
    array = np.random.default_rng(4).standard_t(3, (5, 60) if axis == 0 else (60, 5)).astype(np.float32)
    largest = WeightSpec(tensor="w", dtype="int8", bits=4, symmetric=True, axis=axis)
    best = replace(largest, method="mse")
    found = quantize_weight(array, best)
    errors = [np.square(quantize_weight(array, spec).real(axis) - array).sum(1 - axis) for spec in (best, largest)]
    assert (errors[0] <= errors[1] * (1 + 1e-6)).all()
    assert (errors[0] < errors[1]).any()
    for channel in range(5):
        alone = np.take(array, [channel], axis)
        assert quantize_weight(alone, best).scale == found.scale[channel]
        tried = np.linspace(0.6, 1, 401) * np.abs(alone).max() / 7
        steps = np.clip(np.rint(alone[..., None] / tried), -7, 7)
        assert errors[0][channel] <= np.square(steps * tried - alone[..., None]).sum((0, 1)).min() * 1.1


def test_weights_of_zero_are_exact():
    found = quantize_weight(
        np.zeros((3, 4), np.float32), WeightSpec(tensor="w", dtype="int8", bits=8, symmetric=True, axis=0)
    )
    assert (found.scale > 0).all()
    assert not found.real(0).any()


@given(
    st.lists(arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=8)
)
@settings(max_examples=60)
def test_histogram_counts_everything_whatever_the_order(parts):
    histogram = Histogram(bins=16)
    for part in parts:
        histogram.add(part)
        histogram.flush()
    values = np.concatenate(parts)
    assert histogram.counts.sum() == histogram.drawn == values.size
    assert histogram.low <= values.min()
    assert histogram.high >= values.max()
    assert histogram.zeros == (values == 0).sum()
    width = (histogram.high - histogram.low) / 16
    middle = float(np.median(values))
    edges = np.linspace(histogram.low, histogram.high, 17)
    below = np.interp(middle, edges, np.concatenate([[0], np.cumsum(histogram.counts)])) if width else values.size / 2
    assert (values < middle - 2 * width).sum() <= below + 1e-6
    assert below <= (values <= middle + 2 * width).sum() + 1e-6


def test_histogram_ignores_what_is_not_finite():
    histogram = Histogram()
    histogram.add(np.array([np.nan, np.inf, 1.0, -2.0], np.float32))
    histogram.flush()
    assert histogram.drawn == 2
    assert (histogram.low, histogram.high) == (-2.0, 1.0)


def statistics(values) -> TensorStatistics:
    histogram = Histogram()
    histogram.add(values)
    histogram.flush()
    ends_ = [np.array([float(end)]) for end in (values.min(), values.max(), values.mean())]
    return TensorStatistics(
        tensor="t",
        axis=None,
        shape=values.shape,
        elements=values.size,
        low=ends_[0],
        high=ends_[1],
        mean=ends_[2],
        bins_low=histogram.low,
        bins_high=histogram.high,
        bins=histogram.counts,
        zeros=histogram.zeros,
        drawn=histogram.drawn,
        square=1.0,
        vectors=np.zeros((0, 0), np.float32),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
@given(arrays(np.float32, st.integers(1, 200), elements=reals))
@settings(max_examples=40)
def test_ranges_hold_zero_and_never_exceed_what_was_seen(method, symmetric, values):
    item = statistics(values)
    low, high = find_range(item, RangeRule(method=method, symmetric=symmetric))
    assert low <= 0 <= high
    largest = max(abs(float(values.min())), abs(float(values.max())))
    assert -largest <= low
    assert high <= largest
    if symmetric:
        assert low == -high
    if method == "minmax" and not symmetric:
        assert (low, high) == (min(float(values.min()), 0.0), max(float(values.max()), 0.0))


def quantization_mse(values, low, high) -> float:
    scale, zero_point = activation_parameters(low, high, "uint8", symmetric=False)
    back = dequantize(
        quantize(values.astype(np.float64), np.array(scale), zero_point, "uint8"), np.array(scale), zero_point
    )
    return float(np.square(back - values).mean())


@pytest.mark.parametrize("seed", range(4))
def test_mse_beats_minmax_where_there_are_outliers(seed):
    rng = np.random.default_rng(seed)
    values = rng.laplace(size=200_000).astype(np.float32)
    values[0] = 60.0
    item = statistics(values)
    by_method = {
        method: quantization_mse(values, *find_range(item, RangeRule(method=method))) for method in ("mse", "minmax")
    }
    assert by_method["mse"] < 0.8 * by_method["minmax"]


def test_percentile_clips_its_share():
    values = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    item = statistics(values)
    low, high = find_range(item, RangeRule(method="percentile", percentile=99.0))
    assert clipped_share(item, low, high) == pytest.approx(0.01, abs=2e-3)


def test_entropy_clips_a_lone_outlier():
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    values[0] = 100.0
    low, high = find_range(statistics(values), RangeRule(method="entropy"))
    assert high < 50
    assert low >= values.min()


def test_reservoir_is_bounded_and_even():
    reservoir = Reservoir()
    for start in range(0, 40_000, 100):
        reservoir.add(np.repeat(np.arange(start, start + 100, dtype=np.float32)[:, None], 256, axis=1))
    rows = reservoir.rows()
    assert rows.nbytes <= 2 * 2**20
    assert len(rows) > 500
    assert np.unique(np.diff(rows[:, 0])).size == 1
    assert rows[-1, 0] > 39_000


@given(arrays(np.float32, (3, 40), elements=st.floats(-10, 10, width=32)), st.sampled_from([4, 8]))
@settings(max_examples=40)
def test_blocks_stay_within_their_steps(rows, bits):
    integers, scale = quantize_blocks(rows, bits, 16)
    assert integers.shape == (3, 3, 16)
    assert integers.max() < 2**bits
    back = (integers.astype(np.float64) - 2 ** (bits - 1)) * scale[:, :, None]
    error = np.abs(back.reshape(3, -1)[:, :40] - rows)
    # clipping may cost a single weight more than a step, but never the block as a whole
    assert np.square(error).sum() <= rows.size * (np.abs(rows).max() / 2 ** (bits - 1) + 1e-5) ** 2


def test_gptq_beats_rounding_on_the_outputs():
    rng = np.random.default_rng(5)
    mixed = rng.standard_normal((64, 64)) * np.linspace(0.1, 3, 64)
    vectors = (rng.standard_normal((500, 64)) @ mixed).astype(np.float32)
    rows = rng.standard_normal((24, 64)).astype(np.float32)

    def loss(given_vectors):
        integers, scale = quantize_blocks(rows, 4, 32, given_vectors)
        back = ((integers.astype(np.float32) - 8) * scale[:, :, None]).reshape(24, 64)
        return float(np.square(vectors @ (back - rows).T).mean())

    assert loss(vectors) < 0.85 * loss(None)


def test_seven_bits_cannot_saturate_the_pairwise_sums_of_avx2():
    # vpmaddubsw: u8·s8 + u8·s8 into int16
    assert 2 * 255 * weight_limit(7) <= 32767 < 2 * 255 * weight_limit(8)
