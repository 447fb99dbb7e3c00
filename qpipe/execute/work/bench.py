"""The workbench of one cell in its child: the job, and what is at hand to do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.execute.jobs import CellJob
from qpipe.records.cell import Cell

if TYPE_CHECKING:
    from qpipe.plugins.backend import Backend, Progress
    from qpipe.plugins.registry import Registry
    from qpipe.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every step of a cell needs."""

    job: CellJob
    registry: Registry
    store: Store
    backend: Backend
    progress: Progress

    @property
    def cell(self) -> Cell:
        """The cell at hand."""
        return self.job.cell
