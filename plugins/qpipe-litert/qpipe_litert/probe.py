"""A batch of made-up inputs on which two graphs are compared; never used for ranges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import RefusedError
from qpipe.measure.probe import probe_inputs as made_up
from qpipe.records.engine import Prepared
from qpipe.records.tensors import TensorSpec

Array = NDArray[np.generic]


def probe_shape(prepared: Prepared, spec: TensorSpec) -> tuple[int | None, ...]:
    """Shape of one input with every free dimension but the first fixed to the profile's best size.

    Raises:
        RefusedError: a free dimension that no shape range fixes.
    """
    best = {shape.name: shape.best for shape in prepared.shapes}.get(spec.name)
    dims: list[int | None] = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            dims.append(dim)
        elif axis == 0:
            dims.append(None)
        elif best is not None:
            dims.append(best[axis])
        else:
            raise RefusedError(
                f"input {spec.name} has a free dimension {dim or '?'} at axis {axis}: LiteRT needs its size",
                hint="fix the dimension in the model, or give the shapes of this input",
            )
    return tuple(dims)


def probe_inputs(prepared: Prepared, rows: int, seed: int = 0) -> dict[str, Array]:
    """`rows` made-up rows by name (`qpipe.measure.probe`)."""
    shapes = {
        spec.name: [rows if dim is None else dim for dim in probe_shape(prepared, spec)]
        for spec in prepared.signature.inputs
    }
    return made_up(prepared, shapes, seed)
