"""Passes over the rows of a role, without what fills up a fixed batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpipe.data import Role
    from qpipe.plugins.backend import Tensors


def real_batches(role: Role) -> Iterator[Tensors]:
    """Batches without the rows that fill up a fixed batch: the runner fills up by itself."""
    for batch in role.batches():
        yield {name: tensor[: batch.rows] for name, tensor in batch.items()}


def count_batches(role: Role) -> int:
    """How many batches a pass over a role has."""
    return -(-role.rows // role.batch_size)
