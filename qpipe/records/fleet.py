"""Several pipelines of one command, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qpipe.records.result import RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a pipeline has no result: an error that the user can act on, or a bug."""

    message: str
    hint: str
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One pipeline file: its result, or why there is none."""

    file: Path
    end: RunResult | Refusal

    @property
    def exit_code(self) -> int:
        """As if it had been run alone."""
        return self.end.exit_code if isinstance(self.end, RunResult) else self.end.code
