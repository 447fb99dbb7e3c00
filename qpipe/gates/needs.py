"""What has to be measured at all, from the gates that will judge a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qpipe.gates.parameters import gate_type
from qpipe.plugins.gate import GateType, Need
from qpipe.records.recipe import REFERENCE
from qpipe.records.verdict import GateSpec


def gate_needs(
    specs: Iterable[GateSpec], types: Mapping[str, GateType[object]], *, recipe: str, target: str
) -> frozenset[Need]:
    """Evidence that the gates of one cell ask for; nothing for the reference recipe, which is never gated.

    Raises:
        ConfigError: a gate of unknown type.
    """
    if recipe == REFERENCE:
        return frozenset()
    return frozenset(
        need for spec in specs if spec.applies(recipe=recipe, target=target) for need in gate_type(spec, types).needs
    )


def needs_profile(
    specs: Iterable[GateSpec], types: Mapping[str, GateType[object]], *, recipe: str, target: str
) -> bool:
    """Whether any gate of this cell judges latency or memory."""
    return "profile" in gate_needs(specs, types, recipe=recipe, target=target)
