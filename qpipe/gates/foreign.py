"""Gates of plugins are asked with care: nothing that their code does ends a run, or passes by accident."""

from __future__ import annotations

import math
import numbers
from dataclasses import replace
from typing import TypeVar, get_args

from qpipe.gates.verdicts import not_accepted
from qpipe.plugins.calls import one_line, prints_aside
from qpipe.plugins.code import is_ours
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.records.engine import Kind
from qpipe.records.verdict import Decision, SliceVerdict, Verdict

V = TypeVar("V", Verdict, SliceVerdict)


def ask(gate: GateType[object], outcomes: Outcomes, params: object, alpha: Alpha) -> Verdict:
    """The verdict of a gate; of a plugin's one that says what was wrong, where it gives none that can be kept."""
    if is_ours(gate.decide):
        return gate.decide(outcomes, params, alpha)
    try:
        with prints_aside():
            found: object = gate.decide(outcomes, params, alpha)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (anybody's code)
        return _open(gate, f"the gate's code raised {one_line(error)}")
    if not isinstance(found, Verdict):
        return _open(gate, f"the gate's code gave {type(found).__name__}, not a Verdict")
    if problem := _problem(found, outcomes.accept):
        return _open(gate, problem)
    return replace(_plain(found), slices=tuple(_plain(one) for one in found.slices))


def _open(gate: GateType[object], reason: str) -> Verdict:
    return Verdict(gate=gate.name, decision=Decision.INCONCLUSIVE, reason=reason)


def _problem(found: Verdict, accept: tuple[str, ...]) -> str:
    slices: tuple[object, ...] = found.slices if isinstance(found.slices, tuple) else (found.slices,)
    if not all(isinstance(one, SliceVerdict) for one in slices):
        return "the gate's code gave slices that are no SliceVerdict"
    if found.kind not in {None, *get_args(Kind)}:
        return f"the gate's code gave the kind {found.kind!r}, not one of {', '.join(get_args(Kind))}"
    if found.kind is not None and found.kind not in accept and found.decision is Decision.PASS:
        return not_accepted(found.kind, accept)
    parts: tuple[Verdict | SliceVerdict, ...] = (found, *found.slices)
    return next((problem for one in parts if (problem := _odd_numbers(one))), "")


def _odd_numbers(found: Verdict | SliceVerdict) -> str:
    decision: object = found.decision
    if not isinstance(decision, Decision):
        return f"the gate's code gave the decision {found.decision!r}, not a Decision"
    for name, value in _numbers(found).items():
        if not isinstance(value, numbers.Real):
            return f"the gate's code gave {name} = {value!r}, not a number"
        decides = name not in {"low", "high"} or math.isnan(value)
        if found.decision is Decision.PASS and decides and not math.isfinite(value):
            return f"the gate's code passed what is not a finite number: {name} = {value}"
    return ""


def _numbers(found: Verdict | SliceVerdict) -> dict[str, object]:
    """The fields with numbers that are not None."""
    names = ("observed", "low", "high", "limit", "alpha", "n")
    return {name: value for name in names if (value := getattr(found, name, None)) is not None}


def _plain(found: V) -> V:
    """With numbers of Python; None for what is not finite."""
    plain = {name: _number(name, value) for name, value in _numbers(found).items()}
    return replace(found, **plain)  # type: ignore[arg-type]  # each name has its own type


def _number(name: str, value: object) -> float | int | None:
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    return int(float(value)) if name == "n" else float(value)
