"""Gates: pure decisions from evidence to verdicts, and the ledger of looks."""

from __future__ import annotations

from qpipe.gates.outcomes import load_outcomes, save_outcomes

__all__ = ["load_outcomes", "save_outcomes"]
