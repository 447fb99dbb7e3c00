"""Tensors at the border of a model: names, shapes, dtypes."""

from __future__ import annotations

from dataclasses import dataclass

Dim = int | str | None
"""A fixed size, the name of a free dimension, or an unnamed free dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: `dtype` is numpy's name (`float32`, `int64`)."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape has the rank and the fixed sizes."""
        return len(shape) == len(self.shape) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model or an engine takes and gives, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRange:
    """The shapes that one input will meet: the optimum is what profiles use."""

    name: str
    low: tuple[int, ...]
    best: tuple[int, ...]
    high: tuple[int, ...]
