"""Schemes that TensorRT executes, by the name that a target writes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import TargetError

if TYPE_CHECKING:
    from qpipe.records.scheme import Scheme
    from qpipe.records.target import Target

_PRECISION = {"tensorrt": "int8", "tensorrt-fp8": "fp8"}
DEFAULT = "tensorrt"


def precision_of(target: Target) -> str:
    """The precision that the target's scheme asks of its GPU: `int8` or `fp8`.

    Raises:
        TargetError: the scheme is none of TensorRT's.
    """
    name = target.scheme or DEFAULT
    if name not in _PRECISION:
        raise TargetError(
            f"target {target.name}: scheme `{name}` is none of TensorRT's", hint=f"one of {', '.join(_PRECISION)}"
        )
    return _PRECISION[name]


def scheme_of(target: Target, product: str) -> Scheme:
    """The scheme that the target names, int8 where it names none.

    TensorRT for RTX builds every ConvTranspose as a float kernel, whatever its Q/DQ (1.7.1.116, capabilities 8.6 and
    8.9): quantizing it would cost accuracy and gain nothing. It also keeps the outputs of products in float, so that
    the pair of a skip that no product reads as integers stands in the Add's own kernel: a second rounding that saves
    no memory.

    Raises:
        TargetError: the scheme is none of TensorRT's.
    """
    from qpipe.quant.schemes import TENSORRT, TENSORRT_FP8

    scheme = TENSORRT_FP8 if precision_of(target) == "fp8" else TENSORRT
    if product != "tensorrt-rtx":
        return scheme
    kernels = tuple(op for op in scheme.ops if op != "ConvTranspose")
    name = scheme.name.replace("tensorrt", product)
    return replace(scheme, name=name, ops=kernels, residual_products=False)
