"""What colours mean in every plot."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from qpipe.records.verdict import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

COLOUR: Mapping[Decision | None, str] = MappingProxyType(
    {Decision.PASS: "#15803d", Decision.FAIL: "#b91c1c", Decision.INCONCLUSIVE: "#b45309", None: "#64748b"}
)
"""By verdict; the reference and cells without one are grey."""
MARKER: Mapping[Decision | None, str] = MappingProxyType(
    {Decision.PASS: "o", Decision.FAIL: "X", Decision.INCONCLUSIVE: "D", None: "s"}
)
"""The same for those who see no colours, and for paper."""
FLOAT, ENGINE, ZERO = "#94a3b8", "#2563eb", "#475569"
