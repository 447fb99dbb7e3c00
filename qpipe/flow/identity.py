"""The id of a run: a digest of what it demands, so that the same demand is the same run."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

from qpipe.data import outcome_digest
from qpipe.records.codec import encode

if TYPE_CHECKING:
    from qpipe.flow.workplace import Workplace


def run_identity(workplace: Workplace, *, fresh: bool) -> str:
    """16 hexadecimal characters over the pipeline's name, its cells and its gates; a fresh run is always new."""
    found = hashlib.sha256(workplace.pipeline.name.encode())
    for cell in workplace.cells:
        found.update(f"{cell.label} {cell.key}\n".encode())
    for gate in workplace.pipeline.gates:
        found.update(encode(gate).encode())
    if workplace.pipeline.search is not None:
        rows = outcome_digest(workplace.pipeline.data, "search")
        found.update(f"{encode(workplace.pipeline.search)} {rows}\n".encode())
    found.update(encode(workplace.pipeline.promote).encode() if workplace.pipeline.promote else b"no promotion")
    if fresh:
        found.update(uuid.uuid4().bytes)
    return found.hexdigest()[:16]
