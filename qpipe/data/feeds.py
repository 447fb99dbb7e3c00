"""Batches of one exact size for profiles."""

from __future__ import annotations

from itertools import islice

from qpipe.data.batches import Batch
from qpipe.data.roles import Role


def feeds_for_profile(role: Role, batch_size: int, count: int) -> tuple[Batch, ...]:
    """`count` batches of exactly `batch_size` rows from the start of a role; rows repeat where it has too few.

    Raises:
        DataError: the model's batch is fixed at another size.
    """
    drawn = tuple(batch.padded_to(batch_size) for batch in islice(role.batches(batch_size), count))
    return tuple(drawn[number % len(drawn)] for number in range(count))
