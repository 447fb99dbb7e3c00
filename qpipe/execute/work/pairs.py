"""`evaluation.json` of an evaluation object: the engine beside the float model as given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.execute.jobs import EvaluationPair
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import NotMeasured

if TYPE_CHECKING:
    from pathlib import Path

FILE = "evaluation.json"


def load_pair(folder: Path) -> EvaluationPair:
    """What an evaluation object says."""
    return decode(EvaluationPair, (folder / FILE).read_text())


def save_pair(folder: Path, pair: EvaluationPair) -> None:
    """Write what an evaluation object says."""
    (folder / FILE).write_text(encode(pair))


def write_unmeasured(folder: Path, reason: str, hint: str) -> None:
    """An evaluation that was not made, why, and what would help."""
    missing = NotMeasured(reason=reason, hint=hint)
    save_pair(folder, EvaluationPair(engine=missing, reference=missing))
