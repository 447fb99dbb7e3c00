"""Which of several builds the builder's progress is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The `Progress` of one build of several."""

    progress: Progress
    number: int
    """From 1."""
    builds: int

    def step(self, name: str, *, total: int | None = None) -> None:
        """The step, with the number of the build where there are several."""
        self.progress.step(name if self.builds == 1 else f"build {self.number} of {self.builds}: {name}", total=total)

    def advance(self, amount: int = 1) -> None:
        """As of any step."""
        self.progress.advance(amount)
