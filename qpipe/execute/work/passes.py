"""Passes over the rows of a role, without what fills up a fixed batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpipe.data import Role
    from qpipe.plugins.backend import Tensors

LIGHT_BYTES = 3 << 19
"""Inputs of one run, 1.5 MiB: two images of 3×224×224. With more of them every activation leaves the CPU's caches,
and casts between float types pay for it: an evaluation in float16 took 16.3 s at 16 rows, 12.5 s at 2, float itself
8.5 and 7.6 s (MobileNetV2's layout, 744 rows, onnxruntime on x86-64)."""


def real_batches(role: Role, size: int | None = None) -> Iterator[Tensors]:
    """Batches without the rows that fill up a fixed batch: the runner fills up by itself."""
    for batch in role.batches(size):
        yield {name: tensor[: batch.rows] for name, tensor in batch.items()}


def pass_batches(role: Role, size: int | None) -> Iterator[Tensors]:
    """The same for a pass over all rows: `size` at once, or by default as many as stay light."""
    return real_batches(role, size or light_rows(role))


def pass_name(size: int | None) -> str:
    """What names the batches of a pass in keys."""
    return str(LIGHT_BYTES) if size is None else f"{size} rows"


def light_rows(role: Role) -> int:
    """Rows per run: the role's batch, fewer of large inputs. A model's own batch stays, and where rows are trimmed."""
    if role.fixed is not None or role.data.trim is not None:
        return role.batch_size
    row_bytes = sum(math.prod(one.column.shape) * _itemsize(one.spec.dtype) for one in role.inputs)
    return max(1, min(role.batch_size, LIGHT_BYTES // max(row_bytes, 1)))


def count_batches(role: Role, size: int | None = None) -> int:
    """How many batches a pass over a role has."""
    return -(-role.rows // (size or light_rows(role)))


def _itemsize(dtype: str) -> int:
    import numpy as np

    return np.dtype(dtype).itemsize
