"""HQQ: scales and zero points of blocks that lower the l_p error of the weights, without data.

A half-quadratic split of min ‖W − W_q‖_p, p < 1: a proximal step takes the outliers out of the error, then what
remains has closed forms.
Source: Badri and Shaji 2023, "Half-quadratic quantization of large machine learning models",
mobiusml.github.io/hqq_blog. The paper fixes the scale and solves for a real zero point. MatMulNBits is fast with whole
zero points alone (real ones: 10 times slower at one row), so ours are rounded, and the scale has its closed form too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F32, SMALLEST_SCALE
from qpipe.quant.weights.blocks import block_scales

P = 0.7
"""The norm: less than 1, so that outliers count less than in a squared error (their default)."""
ROUNDS = 10
"""Half of their default: the other ten lower the error by another 0.5 %."""
BETA, GROWTH = 10.0, 1.01
"""Weight of the split and its growth per round (their defaults), for errors in steps of the block."""


def hqq_blocks(blocks: F32, bits: int) -> tuple[NDArray[np.uint8], F32, NDArray[np.uint8]]:
    """(integers [N, blocks, block], scales [N, blocks], zero points [N, blocks]) of weights [N, blocks, block].

    Per block never worse in the l_p error than nearest rounding with `block_scales`.
    """
    best = np.full(blocks.shape[:2], np.inf, np.float32)
    scale, zero = np.ones(best.shape, np.float32), np.zeros(best.shape, np.float32)
    for start in _starts(blocks, bits):
        for tried, middle in _rounds(blocks, *start, 2**bits - 1):
            error = lp_error(blocks - _round_trip(blocks, tried, middle, 2**bits - 1))
            better = error < best
            scale, zero = np.where(better, tried, scale), np.where(better, middle, zero)
            best = np.where(better, error, best)
    integers = _integers(blocks, scale, zero, 2**bits - 1)
    return integers.astype(np.uint8), scale, zero.astype(np.uint8)


def lp_error(error: F32) -> F32:
    """Σ|e|^p over the last axis."""
    return np.asarray(np.power(np.abs(error), P).sum(axis=-1), np.float32)


def _starts(blocks: F32, bits: int) -> tuple[tuple[F32, F32], ...]:
    """(scale, zero point) that span each block, and those of nearest rounding."""
    top = 2**bits - 1
    low, high = blocks.min(axis=2), blocks.max(axis=2)
    span = np.where(high - low > top * SMALLEST_SCALE, (high - low) / top, np.float32(1))
    nearest = block_scales(blocks, bits)
    middle = np.full(nearest.shape, 2 ** (bits - 1), np.float32)
    return (span, np.clip(np.rint(-low / span), 0, top)), (nearest, middle)


def _rounds(real: F32, scale: F32, zero: F32, top: int) -> Iterator[tuple[F32, F32]]:
    """The start, and what each round makes of it."""
    beta = BETA
    for _ in range(ROUNDS):
        yield scale, zero
        integers = _integers(real, scale, zero, top)
        target = real - _outliers(real - (integers - zero[:, :, None]) * scale[:, :, None], scale, beta)
        zero = np.clip(np.rint((integers - target / scale[:, :, None]).mean(axis=2)), 0, top)
        steps = integers - zero[:, :, None]
        power = np.square(steps).sum(axis=2)
        fitted = (steps * target).sum(axis=2) / np.maximum(power, 1.0)
        scale = np.where((power > 0) & (np.abs(fitted) > SMALLEST_SCALE), fitted, scale)
        beta *= GROWTH


def _outliers(error: F32, scale: F32, beta: float) -> F32:
    """The proximal operator of the l_p norm: what of the error is left to outliers (their generalised shrinkage)."""
    size = np.abs(error / scale[:, :, None])
    kept = np.maximum(size - np.power(np.maximum(size, 1e-12), P - 1.0) / beta, 0.0)
    return np.asarray(np.sign(error) * kept * np.abs(scale[:, :, None]), np.float32)


def _integers(real: F32, scale: F32, zero: F32, top: int) -> F32:
    return np.asarray(np.clip(np.rint(real / scale[:, :, None] + zero[:, :, None]), 0, top), np.float32)


def _round_trip(real: F32, scale: F32, zero: F32, top: int) -> F32:
    return (_integers(real, scale, zero, top) - zero[:, :, None]) * scale[:, :, None]
