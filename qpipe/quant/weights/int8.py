"""Quantizing initializers by their specification; rendering and bias correction both see exactly these integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F32, F64, FLOAT8_MAX, SMALLEST_SCALE, best_scale, weight_limit
from qpipe.quant.weights.int4 import quantize_int4, reduced_axis, spread_blocks
from qpipe.records.quantization import WeightSpec

SHRINKS = np.linspace(1.0, 0.6, 17)
"""Fractions of the largest magnitude that the squared-error search tries."""
EMPTY_SCALE = 2.0**-20
"""Scale of a channel whose weights are all zero: fine enough for its bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedWeight:
    """Integers (or float8 values held as float32) with their scales."""

    values: NDArray[np.generic]
    scale: F32
    """[C] per channel, a scalar array, or for blocks an array with one entry per block along the reduced axis."""
    block_size: int | None = None

    def real(self, axis: int | None) -> F32:
        """The weights as the kernel sees them."""
        if self.block_size is not None:
            along = reduced_axis(axis)
            scale = spread_blocks(self.scale, self.values.shape[along], self.block_size, along)
            return np.asarray(self.values, np.float32) * scale
        return np.asarray(self.values, np.float32) * spread_scale(self.scale, axis, self.values.ndim)


def spread_scale(scale: F32, axis: int | None, rank: int) -> F32:
    """Per-channel scales shaped to multiply an array of that rank."""
    if axis is None:
        return scale
    return scale.reshape([-1 if place == axis else 1 for place in range(rank)])


def quantize_weight(array: F32, spec: WeightSpec, floor: F64 | None = None) -> QuantizedWeight:
    """Symmetric integers (int8, or float8 values as float32) of a weight, by its specification.

    `floor` ([C] or scalar) is the smallest scale that the bias allows; int4 in blocks takes none: its bias stays float.
    """
    if spec.block_size is not None:
        values, scales = quantize_int4(array, reduced_axis(spec.axis), spec.block_size)
        return QuantizedWeight(values=values, scale=scales, block_size=spec.block_size)
    limit = FLOAT8_MAX if spec.dtype == "float8e4m3fn" else float(weight_limit(spec.bits))
    rows = _rows(array, spec.axis)
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    scale = np.where(largest > 0, np.maximum(largest / limit, SMALLEST_SCALE), EMPTY_SCALE)
    if spec.method == "mse" and spec.dtype != "float8e4m3fn":
        scale = _best(rows, scale, limit)
    if floor is not None:
        scale = np.maximum(scale, floor)
    final = np.asarray(scale, np.float32).reshape(-1 if spec.axis is not None else ())
    ratio = array / spread_scale(final, spec.axis, array.ndim)
    if spec.dtype == "float8e4m3fn":
        return QuantizedWeight(values=np.clip(ratio, -limit, limit).astype(np.float32), scale=final)
    return QuantizedWeight(values=np.clip(np.rint(ratio), -limit, limit).astype(np.int8), scale=final)


def _rows(array: F32, axis: int | None) -> F32:
    if axis is None:
        return array.reshape(1, -1)
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _best(rows: F32, scale: F64, limit: float) -> F64:
    """Per channel, the shrunken scale with the smallest squared error."""

    def error(tried: F64) -> F64:
        integers = np.clip(np.rint(rows / tried[:, None]), -limit, limit)
        return np.asarray(np.square(integers * tried[:, None] - rows).sum(axis=1))

    return best_scale(scale, SHRINKS, error)


def bias_floor(bias: F32, input_scale: float) -> F64:
    """Smallest weight scale per channel for which the int32 bias does not overflow."""
    return np.abs(np.asarray(bias, np.float64)) / (input_scale * 2.0**30)
