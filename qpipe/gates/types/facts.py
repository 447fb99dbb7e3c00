"""`facts`, `arena`, `flash`, `sram`, `npu_share`: numbers that a toolchain gives about an engine. Exact."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from qpipe.gates.checks import STRICT, positive_problem
from qpipe.gates.verdicts import number, unaccepted, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.engine import Fact
from qpipe.records.verdict import Decision, Verdict

BYTES: dict[str, float] = {"b": 1, "byte": 1, "bytes": 1, "kib": 2**10, "mib": 2**20, "kb": 1e3, "mb": 1e6}
"""Bytes per unit, by the unit's name in lower case."""
SHARES: dict[str, float] = {"share": 1, "ratio": 1, "fraction": 1, "1": 1, "": 1, "%": 0.01, "percent": 0.01}


@dataclass(frozen=True, slots=True, kw_only=True)
class FactLimits:
    """Any fact by its name, in the unit that the toolchain gives it in."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    name: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMostKib:
    """A memory limit in KiB."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_most_kib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLeastShare:
    """A share of operators, 0 … 1."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_least: float


def decide(outcomes: Outcomes, params: FactLimits, alpha: Alpha) -> Verdict:
    """PASS if the fact keeps its limits."""
    del alpha
    fact = _find(outcomes, "facts", params.name)
    if isinstance(fact, Verdict):
        return fact
    return _exact("facts", fact, params.at_least, params.at_most)


def _memory_gate(name: str, summary: str) -> GateType[AtMostKib]:
    def decide_memory(outcomes: Outcomes, params: AtMostKib, alpha: Alpha) -> Verdict:
        del alpha
        return _converted(outcomes, name, BYTES, 2**10, "KiB", at_most=params.at_most_kib)

    def check_memory(params: AtMostKib, metric: Metric) -> str | None:
        del metric
        return positive_problem("at_most_kib", params.at_most_kib)

    return GateType(name=name, summary=summary, params=AtMostKib, decide=decide_memory, check=check_memory)


def _decide_npu(outcomes: Outcomes, params: AtLeastShare, alpha: Alpha) -> Verdict:
    del alpha
    return _converted(outcomes, "npu_share", SHARES, 1, "of the operators", at_least=params.at_least)


def _check_npu(params: AtLeastShare, metric: Metric) -> str | None:
    del metric
    if not 0 < params.at_least <= 1:
        return f"at_least is {params.at_least:g}, it is a share above 0 and at most 1"
    return None


def _find(outcomes: Outcomes, gate: str, name: str) -> Fact | Verdict:
    """The fact of that name (`arena` finds `arena_bytes` too), or why it decides nothing."""
    facts = {fact.name: fact for fact in outcomes.evidence.facts}
    fact = facts.get(name) or facts.get(f"{name}_bytes")
    if fact is None:
        there = ", ".join(sorted(facts)) or "none"
        return undecided(gate, f"not measured: the engine has no fact '{name}' (it has: {there})")
    if fact.kind not in outcomes.accept:
        return unaccepted(gate, fact.kind, outcomes.accept)
    if not math.isfinite(fact.value):
        return undecided(gate, f"'{name}' is not a finite number", kind=fact.kind)
    return fact


def _converted(
    outcomes: Outcomes,
    name: str,
    units: dict[str, float],
    per: float,
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Verdict:
    fact = _find(outcomes, name, name)
    if isinstance(fact, Verdict):
        return fact
    factor = units.get(fact.unit.lower())
    if factor is None:
        known = ", ".join(one for one in units if one)
        return undecided(name, f"'{fact.name}' is in '{fact.unit}', not in one of {known}", kind=fact.kind)
    value = round(fact.value * factor / per, 12)  # 93.1 % is .931, not an ulp less
    return _exact(name, replace(fact, value=value, unit=unit), at_least, at_most)


def _exact(gate: str, fact: Fact, at_least: float | None, at_most: float | None) -> Verdict:
    value = fact.value
    too_little, too_much = at_least is not None and value < at_least, at_most is not None and value > at_most
    limit = at_least if too_little or at_most is None else at_most
    if limit is None:
        return undecided(gate, "no limit is set", kind=fact.kind)
    bound = "at least" if limit is at_least else "at most"
    return Verdict(
        gate=gate,
        decision=Decision.FAIL if too_little or too_much else Decision.PASS,
        reason=f"{fact.name} is {number(value)} {fact.unit}, {bound} {number(limit)} wanted",
        observed=value,
        limit=limit,
        kind=fact.kind,
    )


def check(params: FactLimits, metric: Metric) -> str | None:
    """A name and at least one finite limit."""
    del metric
    limits = [limit for limit in (params.at_least, params.at_most) if limit is not None]
    if not params.name:
        return "facts needs the name of a fact"
    if not limits:
        return "facts needs at_least, at_most or both"
    if not all(math.isfinite(limit) for limit in limits):
        return "at_least and at_most must be finite numbers"
    if len(limits) == 2 and limits[0] > limits[1]:
        return f"at_least is {limits[0]:g}, above at_most {limits[1]:g}: nothing could pass"
    return None


FACTS: GateType[FactLimits] = GateType(
    name="facts", summary="any number that the toolchain gives", params=FactLimits, decide=decide, check=check
)
ARENA = _memory_gate("arena", "tensor arena of a microcontroller")
FLASH = _memory_gate("flash", "flash of a microcontroller")
SRAM = _memory_gate("sram", "SRAM of a microcontroller")
NPU_SHARE: GateType[AtLeastShare] = GateType(
    name="npu_share",
    summary="share of the operators that run on the NPU",
    params=AtLeastShare,
    decide=_decide_npu,
    check=_check_npu,
)
