"""int4 weights in blocks along the reduced axis, as DequantizeLinear reads them since opset 21.

Source: ONNX operator specification, DequantizeLinear 21: with `block_size` the scale has an entry per block on `axis`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F32, F64, SMALLEST_SCALE, best_scale

SMALLEST, LARGEST = -8, 7
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Fractions of the largest magnitude that the squared-error search tries."""


def reduced_axis(axis: int | None) -> int:
    """The axis along which blocks run: the input channels of a Conv, the reduced axis of a matrix."""
    return 1 if axis == 0 else 0


def quantize_int4(array: F32, along: int, block_size: int) -> tuple[NDArray[np.int8], F32]:
    """(integers shaped like the weight, scales with one entry per block on axis `along`); symmetric, scales > 0."""
    moved = np.moveaxis(array, along, -1)
    width = moved.shape[-1]
    fill = -(-width // block_size) * block_size - width
    blocks = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, fill)]).reshape(*moved.shape[:-1], -1, block_size)
    largest = np.abs(blocks).max(axis=-1).astype(np.float64)
    base = np.where(largest > LARGEST * SMALLEST_SCALE, largest / LARGEST, 1.0)

    def error(tried: F64) -> F64:
        return np.asarray(np.square(_integers(blocks, tried) * tried[..., None] - blocks).sum(axis=-1))

    final = best_scale(base, SHRINKS, error).astype(np.float32)
    values = _integers(blocks, final).reshape(*moved.shape[:-1], -1)[..., :width]
    return np.moveaxis(values, -1, along).astype(np.int8), np.ascontiguousarray(np.moveaxis(final, -1, along))


def _integers(blocks: F32, scale: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.clip(np.rint(blocks / scale[..., None]), SMALLEST, LARGEST)


def spread_blocks(scale: F32, width: int, block_size: int, along: int) -> F32:
    """One scale per weight of the axis `along`, which is `width` long."""
    return np.asarray(np.take(np.repeat(scale, block_size, axis=along), np.arange(width), axis=along), np.float32)
