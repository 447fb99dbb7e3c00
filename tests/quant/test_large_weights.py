"""Weights that are cut to be rounded: the same numbers, in a part of the memory."""

import tracemalloc

import numpy as np
import pytest

from qpipe.quant.storage.weight_only import _Rounder
from qpipe.quant.weights.blocks import quantize_blocks
from qpipe.quant.weights.nf4 import quantize_nf4
from qpipe.records.quantization import WeightSpec

SPEC = WeightSpec(tensor="w", dtype="uint4", bits=4, symmetric=False, axis=0, block_size=32)
ROUND = {
    "int4": lambda rows: quantize_blocks(rows, 4, 32),
    "int8": lambda rows: quantize_blocks(rows, 8, 32),
    "nf4": lambda rows: quantize_nf4(rows, 32),
    "hqq": lambda rows: _Rounder("hqq", None).blocks(rows, SPEC),
}


def weights(count, width):
    return np.random.default_rng(0).standard_t(4, (count, width)).astype(np.float32)


@pytest.mark.parametrize("kind", ROUND)
def test_cut_weights_are_rounded_to_the_same_numbers(kind, monkeypatch):
    rows = weights(37, 80 if kind != "nf4" else 83)
    whole = ROUND[kind](rows)
    for where in ("blocks", "nf4"):
        monkeypatch.setattr(f"qpipe.quant.weights.{where}.AT_ONCE", 300)
    for before, after in zip(whole, ROUND[kind](rows), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("kind", ["int4", "nf4"])
def test_rounding_takes_no_multiple_of_the_weights_memory(kind, monkeypatch):
    """An output layer of 0.5 GB took 4 GB."""
    for where in ("blocks", "nf4"):
        monkeypatch.setattr(f"qpipe.quant.weights.{where}.AT_ONCE", 2**12)
    rows = weights(256, 512)
    tracemalloc.start()
    ROUND[kind](rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * rows.nbytes
