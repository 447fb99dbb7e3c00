"""All gates of one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qpipe.errors import ConfigError
from qpipe.gates.foreign import ask
from qpipe.gates.parameters import gate_type, read_params
from qpipe.gates.timing import distrust
from qpipe.gates.verdicts import refuse
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.records.evidence import Profile
from qpipe.records.recipe import REFERENCE
from qpipe.records.verdict import Decision, GateSpec, Verdict

SAME_PATH = "timed-outputs"
"""Verdict that no pipeline asks for: it stands where an engine's timed outputs differ from its evaluated ones."""


def decide_cell(
    outcomes: Outcomes,
    specs: Iterable[GateSpec],
    types: Mapping[str, GateType[object]],
    *,
    alpha: Alpha,
    recipe: str,
    target: str,
) -> tuple[Verdict, ...]:
    """A verdict of every gate that applies to this recipe and target, in the pipeline's order.

    The reference recipe `none` is never gated. Passing all gates is an intersection-union test: no correction.

    Args:
        outcomes: of the cell; each gate sees its own `accept`.
        specs: the pipeline's gates.
        types: gate types by name.
        alpha: what the ledger of looks leaves to this decision.
        recipe: name of the cell's recipe.
        target: name of its target.

    Raises:
        ConfigError: a gate of unknown type, or parameters that cannot be meant.
    """
    if recipe == REFERENCE:
        return ()
    found = tuple(
        decide_gate(outcomes, spec, types, alpha) for spec in specs if spec.applies(recipe=recipe, target=target)
    )
    return (*found, *_same_path(outcomes))


def _same_path(outcomes: Outcomes) -> tuple[Verdict, ...]:
    """The timed path is the gated path: an engine that answered otherwise under the clock cannot pass anything."""
    profile = outcomes.evidence.profile
    if not isinstance(profile, Profile) or profile.outputs_match:
        return ()
    return (Verdict(gate=SAME_PATH, decision=Decision.INCONCLUSIVE, reason=distrust(profile), kind=profile.kind),)


def decide_gate(outcomes: Outcomes, spec: GateSpec, types: Mapping[str, GateType[object]], alpha: Alpha) -> Verdict:
    """The verdict of one gate under its own name.

    Raises:
        ConfigError: unknown type, or parameters that cannot be meant.
    """
    gate = gate_type(spec, types)
    params = read_params(gate, spec)
    if problem := gate.objection(params, outcomes.metric):
        raise ConfigError(f"gate '{spec.name}': {problem}", hint=gate.summary)
    seen = replace(outcomes, accept=spec.accept)
    # Asked here too, so that a plugin's gate cannot pass on evidence that was never measured.
    verdict = refuse(spec.name, seen, gate.needs) or ask(gate, seen, params, alpha)
    return replace(verdict, gate=spec.name, required=spec.required)
