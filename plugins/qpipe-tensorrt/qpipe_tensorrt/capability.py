"""What a compute capability can calculate in."""

from __future__ import annotations

Number = tuple[int, int]

_SINCE: dict[str, Number] = {
    "fp32": (7, 5),
    "fp16": (7, 5),
    "int8": (7, 5),
    "tf32": (8, 0),
    "bf16": (8, 0),
    "int4": (8, 0),
    "fp8": (8, 9),
}
"""First capability that has each precision. Source: TensorRT support matrix, "Hardware and Precision"."""

PRECISIONS = tuple(_SINCE)


def number(capability: str) -> Number:
    """`8.9` as (8, 9).

    Raises:
        ValueError: the text is not a compute capability.
    """
    first, dot, second = capability.partition(".")
    if not (dot and first.isdigit() and second.isdigit()):
        raise ValueError(capability)
    return int(first), int(second)


def has(capability: str, precision: str) -> bool:
    """Whether GPUs of this capability have kernels of that precision."""
    return number(capability) >= _SINCE[precision]


def precisions(capability: str) -> tuple[str, ...]:
    """All precisions of a capability."""
    return tuple(name for name in PRECISIONS if has(capability, name))
