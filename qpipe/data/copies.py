"""Rows of a role that are the same input: no evidence of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpipe.data.overlap import kept_as, row_hashes
from qpipe.data.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Which rows have the same model inputs, byte for byte (without what `trim` masks out)."""

    inputs: NDArray[np.int64]
    """The number of each row's input, 0 … distinct − 1, [rows]."""
    calibrated: int = 0
    """Rows whose inputs stand in the calibration rows too."""

    @property
    def distinct(self) -> int:
        """How many different inputs there are."""
        return int(self.inputs.max()) + 1 if len(self.inputs) else 0

    @property
    def repeated(self) -> int:
        """Rows that say again what another has said."""
        return len(self.inputs) - self.distinct


def find_copies(role: Role, calibration: Role | None = None) -> Copies:
    """Copies among the rows of a role, and how many of them stand in calibration; reads the inputs of both once.

    Raises:
        DataError: NaN or infinity in an input.
    """
    roles = (role,) if calibration is None else (role, calibration)
    kept = kept_as(*roles)
    hashes = np.concatenate([row_hashes(one, kept) for one in roles])
    inputs = np.unique(hashes.view(np.dtype([("first", np.uint64), ("second", np.uint64)])), return_inverse=True)[1]
    ours, theirs = np.split(inputs.ravel(), [role.rows])
    numbers = np.unique(ours, return_inverse=True)[1]
    return Copies(inputs=numbers.astype(np.int64), calibrated=int(np.isin(ours, theirs).sum()))


def merge_groups(groups: NDArray[np.generic], inputs: NDArray[np.int64]) -> NDArray[np.generic]:
    """The groups [rows], those that share an input as one: a row that is a copy answers like its twin elsewhere.

    Groups that are linked through others are one too, for their rows are not independent of each other. The column
    itself comes back where no input stands in two groups.
    """
    names, member = np.unique(groups, return_inverse=True)
    links = np.unique(np.stack([inputs, member.ravel()]), axis=1)
    if links.shape[1] == len(np.unique(inputs)):
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(inputs.max()) + 1
    size = first + len(names)
    graph = coo_array((np.ones(links.shape[1]), (links[0], first + links[1])), shape=(size, size))
    merged = connected_components(graph, directed=False)[1][first:]
    return np.asarray(merged[member.ravel()])
