"""The shapes that the inputs of a model will meet, for toolchains that build for a range of shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qpipe.plugins.backend import Tensors
from qpipe.records.tensors import ShapeRange, Signature, TensorSpec


def shape_ranges(
    signature: Signature, calibration: Callable[[], Iterator[Tensors]], rows: int = 1
) -> tuple[ShapeRange, ...]:
    """Smallest, usual and largest shape of every input.

    The first axis ranges from 1 to `rows`, the rows at a time, or the calibration batch where that is larger, with 1 as
    the usual size; other free axes range from 1 to the largest size in the calibration rows, which is also the usual
    one. Calibration rows are read only where a dimension is free.
    """
    if all(isinstance(dim, int) for spec in signature.inputs for dim in spec.shape):
        return tuple(_range(spec, [tuple(_fixed(spec))], rows) for spec in signature.inputs)
    seen: dict[str, set[tuple[int, ...]]] = {spec.name: set() for spec in signature.inputs}
    only_batch = all(isinstance(dim, int) for spec in signature.inputs for dim in spec.shape[1:])
    for batch in calibration():
        for spec in signature.inputs:
            seen[spec.name].add(tuple(batch[spec.name].shape))
        if only_batch:
            break
    return tuple(_range(spec, sorted(seen[spec.name]), rows) for spec in signature.inputs)


def sets_shapes(signature: Signature) -> bool:
    """Whether the shapes that an engine has to serve are known from rows alone: an axis beyond the first is free."""
    return any(not isinstance(dim, int) for spec in signature.inputs for dim in spec.shape[1:])


def _fixed(spec: TensorSpec) -> list[int]:
    return [dim for dim in spec.shape if isinstance(dim, int)]


def _range(spec: TensorSpec, shapes: list[tuple[int, ...]], rows: int) -> ShapeRange:
    low, best, high = [], [], []
    for axis, dim in enumerate(spec.shape):
        free = not isinstance(dim, int)
        largest = dim if isinstance(dim, int) else max((shape[axis] for shape in shapes), default=1)
        if free and axis == 0:
            largest = max(largest, rows)
        low.append(1 if free else largest)
        best.append(1 if free and axis == 0 else largest)
        high.append(largest)
    return ShapeRange(name=spec.name, low=tuple(low), best=tuple(best), high=tuple(high))
