"""Gates: pure decisions from evidence to verdicts, and the ledger of looks."""

from __future__ import annotations

from typing import cast

from qpipe.gates.asked import is_change, with_changes
from qpipe.gates.cell import decide_cell, decide_gate
from qpipe.gates.looks import Family, Look, alpha_of, first_gates, look_advice, past_looks, record_look, take_look
from qpipe.gates.needs import gate_needs, needs_profile
from qpipe.gates.outcomes import load_outcomes, save_outcomes
from qpipe.gates.parameters import check_gates, read_params
from qpipe.gates.types.agreement import AGREEMENT
from qpipe.gates.types.facts import ARENA, FACTS, FLASH, NPU_SHARE, SRAM
from qpipe.gates.types.finite import FINITE
from qpipe.gates.types.floor import FLOOR
from qpipe.gates.types.latency import LATENCY
from qpipe.gates.types.memory import MEMORY
from qpipe.gates.types.placement import PLACEMENT
from qpipe.gates.types.quality import QUALITY
from qpipe.gates.types.size import SIZE
from qpipe.gates.types.slices import SLICES
from qpipe.gates.types.speedup import SPEEDUP
from qpipe.plugins.gate import GateType

__all__ = [
    "Family",
    "Look",
    "alpha_of",
    "builtin_gates",
    "check_gates",
    "decide_cell",
    "decide_gate",
    "first_gates",
    "gate_needs",
    "is_change",
    "load_outcomes",
    "look_advice",
    "needs_profile",
    "past_looks",
    "read_params",
    "record_look",
    "save_outcomes",
    "take_look",
    "with_changes",
]


def builtin_gates() -> tuple[GateType[object], ...]:
    """The gate types of the core."""
    judged = (QUALITY, SLICES, FLOOR, AGREEMENT, FINITE)
    timed = (SPEEDUP, LATENCY, MEMORY)
    built = (SIZE, PLACEMENT, FACTS, ARENA, FLASH, SRAM, NPU_SHARE)
    return tuple(cast("GateType[object]", gate) for gate in (*judged, *timed, *built))
