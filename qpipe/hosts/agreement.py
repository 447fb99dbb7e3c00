"""How far outputs of a device are from those of the same engine file here."""

from __future__ import annotations

import platform
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qpipe.plugins.backend import DeviceTimed, OnDevice, Session, Tensors
from qpipe.records.engine import Kind


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


class Distant(Session, DeviceTimed, OnDevice, Protocol):
    """A session whose engine runs on a device."""


class EmulatedSession:
    """A session under an emulator that also runs every batch here, and says how far the outputs are from those."""

    kind: Kind = "emulated"

    def __init__(self, there: Distant, here: Session, *, known: str) -> None:
        self.signature = there.signature
        self._there = there
        self._here = here
        self._known = known
        self._agreement = Agreement()

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name, as the emulator gives them."""
        found = self._there.run(inputs)
        self._agreement.add(self._here.run(inputs), found)
        return found

    def close(self) -> None:
        """End both."""
        self._there.close()
        self._here.close()

    @property
    def device_ns(self) -> tuple[int, int]:
        """The emulator's, which mean nothing."""
        return self._there.device_ns

    @property
    def device_memory_bytes(self) -> tuple[int, int]:
        """Of the emulated runner: before the engine was loaded, and until now."""
        return self._there.device_memory_bytes

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        """What the emulated machine says of itself."""
        return self._there.device_conditions()

    @property
    def remarks(self) -> tuple[str, ...]:
        """The agreement over all runs so far, and the known answer that the emulator gave first."""
        return (self._agreement.remark, self._known)


def _rows(array: NDArray[np.generic]) -> NDArray[np.float64]:
    return array.astype(np.float64).reshape(len(array), -1)
