"""The arithmetic of linear quantization: integers, scales, zero points, rounding.

real = (q − zero_point) · scale; q = clip(round_half_even(real / scale) + zero_point).
Source: ONNX operator specification, QuantizeLinear; Jacob et al. 2018, arXiv:1712.05877, section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
SMALLEST_SCALE = 2.0**-100
"""Scales below this could underflow when multiplied with another one."""
FLOAT8_MAX = 448.0
"""Largest finite value of float8 E4M3FN. Source: Micikevicius et al. 2022, arXiv:2209.05433, table 1."""
_LIMITS = {
    "uint8": (0, 255),
    "int8": (-128, 127),
    "uint16": (0, 65535),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
    "int4": (-8, 7),
    "uint4": (0, 15),
}
_TYPES = {
    "uint8": ir.DataType.UINT8,
    "int8": ir.DataType.INT8,
    "uint16": ir.DataType.UINT16,
    "int16": ir.DataType.INT16,
    "int32": ir.DataType.INT32,
    "int4": ir.DataType.INT4,
    "uint4": ir.DataType.UINT4,
    "float8e4m3fn": ir.DataType.FLOAT8E4M3FN,
}


def limits(dtype: str) -> tuple[int, int]:
    """Smallest and largest integer of a type.

    Raises:
        QuantizationError: it is not an integer type that we quantize to.
    """
    if dtype not in _LIMITS:
        raise QuantizationError(f"{dtype!r} is not an integer type", hint=f"integer types: {', '.join(_LIMITS)}")
    return _LIMITS[dtype]


def onnx_type(dtype: str) -> ir.DataType:
    """ONNX's name of a type.

    Raises:
        QuantizationError: nothing is quantized to that type.
    """
    if dtype not in _TYPES:
        raise QuantizationError(f"nothing is quantized to {dtype!r}", hint=f"types: {', '.join(_TYPES)}")
    return _TYPES[dtype]


def activation_parameters(low: float, high: float, dtype: str, *, symmetric: bool) -> tuple[float, int]:
    """(scale, zero point) of a real range with low ≤ 0 ≤ high; a range of zero width gets scale 1.

    Symmetric signed types leave their smallest integer unused, so that −x and x are both exact.

    Raises:
        QuantizationError: `dtype` is neither an integer type nor `float8e4m3fn`.
    """
    if dtype == "float8e4m3fn":
        return _scale(max(-low, high), FLOAT8_MAX), 0
    smallest, largest = limits(dtype)
    if symmetric:
        middle = (smallest + largest + 1) // 2
        return _scale(max(-low, high), float(largest - middle)), middle
    scale = _scale(high - low, float(largest - smallest))
    return scale, int(np.clip(np.rint(smallest - low / scale), smallest, largest))


def _scale(span: float, levels: float) -> float:
    return float(np.float32(max(span / levels, SMALLEST_SCALE))) if span > 0 else 1.0


def quantize(array: F32 | F64, scale: F64, zero_point: int, dtype: str) -> NDArray[np.int64]:
    """Integers of an array as int64, within the limits of `dtype`; `scale` broadcasts against the array.

    Raises:
        QuantizationError: `dtype` is not an integer type.
    """
    smallest, largest = limits(dtype)
    integers: NDArray[np.int64] = np.clip(np.rint(array / scale) + zero_point, smallest, largest).astype(np.int64)
    return integers


def best_scale(base: F64, shrinks: Iterable[float], error: Callable[[F64], F64]) -> F64:
    """Of a scale and its shrunken versions the one with the smallest error, for each entry by itself.

    `error` gives the error of scales that are shaped like `base`; of equal errors the first one counts.
    """
    best, least = base, np.full(base.shape, np.inf)
    for shrink in shrinks:
        tried = base * shrink
        found = error(tried)
        best, least = np.where(found < least, tried, best), np.minimum(found, least)
    return best


def weight_limit(bits: int) -> int:
    """Largest magnitude of a symmetric weight of that width."""
    return int(2 ** (bits - 1)) - 1


def dequantize(integers: NDArray[np.generic], scale: F64, zero_point: int) -> F64:
    """Real numbers of integers, float64; `scale` broadcasts against them."""
    return (np.asarray(integers, np.float64) - zero_point) * scale
