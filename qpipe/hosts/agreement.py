"""How far outputs of a device are from those of the same engine file here."""

from __future__ import annotations

import platform

import numpy as np
from numpy.typing import NDArray

from qpipe.plugins.backend import Tensors


class Agreement:
    """Compares the first outputs of batch after batch; rows are the first axis."""

    def __init__(self) -> None:
        self._rows = self._equal = self._same_class = 0
        self._classes = 0
        self._worst = self._largest = 0.0

    def add(self, here: Tensors, there: Tensors) -> None:
        """One batch of both."""
        name = next(iter(here))
        wanted, found = _rows(here[name]), _rows(there[name])
        self._rows += len(wanted)
        apart = np.nan_to_num(np.abs(wanted - found), nan=np.inf)
        apart[(wanted == found) | (np.isnan(wanted) & np.isnan(found))] = 0.0
        self._equal += int(np.count_nonzero((apart == 0.0).all(axis=1)))
        self._worst = max(self._worst, float(apart.max(initial=0.0)))
        self._largest = max(self._largest, float(np.abs(wanted).max(initial=0.0)))
        self._classes = wanted.shape[1]
        if self._classes > 1:
            self._same_class += int(np.count_nonzero(wanted.argmax(axis=1) == found.argmax(axis=1)))

    @property
    def remark(self) -> str:
        """The comparison in words."""
        machine = f"agreement with {platform.machine()}"
        if not self._rows:
            return f"{machine}: no rows were compared"
        if self._equal == self._rows:
            return f"{machine}: all {self._rows:,} rows are bitwise equal"
        share = self._worst / self._largest if self._largest else 0.0
        same = f", {self._same_class:,} rows have the same top class" if self._classes > 1 else ""
        return (
            f"{machine}: {self._equal:,} of {self._rows:,} rows are bitwise equal{same}; the largest difference is "
            f"{self._worst:.4g} ({100 * share:.2g} % of the largest output)"
        )


def _rows(array: NDArray[np.generic]) -> NDArray[np.float64]:
    return array.astype(np.float64).reshape(len(array), -1)
