"""An engine beside the float engine of its target: how long it takes, and how large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.records.evidence import Profile

if TYPE_CHECKING:
    from qpipe.records.evidence import BatchProfile, Ratio
    from qpipe.records.result import CellResult


def first_batch(cell: CellResult) -> BatchProfile | None:
    """What was measured at the first batch size."""
    profile = cell.evidence.profile if cell.evidence else None
    return profile.batches[0] if isinstance(profile, Profile) and profile.batches else None


def time_ratio(cell: CellResult) -> Ratio | None:
    """Latency in parts of the float engine's, at the first batch size."""
    batch = first_batch(cell)
    return batch.ratio if batch else None


def size_ratio(cell: CellResult) -> float | None:
    """Bytes in parts of the float engine's."""
    evidence = cell.evidence
    return (
        evidence.engine_size_bytes / evidence.baseline_size_bytes if evidence and evidence.baseline_size_bytes else None
    )
