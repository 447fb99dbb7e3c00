"""A batch of made-up inputs on which two graphs are compared; never used for ranges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import RefusedError
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


def probe_inputs(prepared: Prepared, rows: int, seed: int = 0) -> Mapping[str, Array]:
    """Random inputs by name: uniform in the plan's own input range, else standard normal; integers are 0 or 1."""
    rng = np.random.default_rng(seed)
    ranges = {spec.tensor: spec for spec in prepared.plan.activations} if prepared.plan else {}
    made: dict[str, Array] = {}
    for spec in prepared.signature.inputs:
        shape = [rows if dim is None else dim for dim in probe_shape(prepared, spec)]
        if np.issubdtype(np.dtype(spec.dtype), np.floating):
            known = ranges.get(spec.name)
            values = rng.uniform(known.low, known.high, shape) if known else rng.normal(size=shape)
            made[spec.name] = values.astype(spec.dtype)
        else:
            made[spec.name] = rng.integers(0, 2, shape).astype(spec.dtype)
    return made
