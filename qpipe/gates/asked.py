"""What gates asked for at the first look at a family, and what they ask for now: told, not forbidden."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from qpipe.records.verdict import GateSpec, Verdict

SINCE = " at the first look and is "
"""What a note on a changed gate says in its middle."""
NOT_SET = "not set"


def with_changes(
    verdicts: Iterable[Verdict], specs: Iterable[GateSpec], first: Mapping[str, GateSpec]
) -> tuple[Verdict, ...]:
    """The verdicts, each with a note where its gate asked for something else at the first look at these rows.

    A required gate that was asked then and is gone now (or has another name) is noted on the first verdict of its type,
    else on the first of all.
    """
    found, now = tuple(verdicts), tuple(specs)
    notes = {spec.name: list(_changes(first.get(spec.name, spec), spec)) for spec in now}
    for name, gate in first.items():
        if gate.required and name not in notes and found:
            alike = [spec.name for spec in now if spec.type == gate.type]
            notes.setdefault((*alike, found[0].gate)[0], []).append(_gone(gate))
    return tuple(replace(one, notes=(*one.notes, *notes.get(one.gate, ()))) for one in found)


def is_change(note: str) -> bool:
    """Whether a note says that a gate asked for something else before."""
    return SINCE in note


def _gone(gate: GateSpec) -> str:
    asked = ", ".join(f"{key} {value}" for key, value in _flat(gate.params))
    return f"gate {gate.name}{f' ({asked})' if asked else ''} was asked{SINCE}gone now"


def _changes(first: GateSpec, now: GateSpec) -> Iterator[str]:
    before, after = _values(first), _values(now)
    for key in dict.fromkeys((*before, *after)):
        was, now_is = before.get(key, NOT_SET), after.get(key, NOT_SET)
        if was != now_is:
            yield f"{key} was {was}{SINCE}{now_is} now"


def _values(spec: GateSpec) -> dict[str, str]:
    """All that a gate asks for, as text: stored parameters come back as lists where tuples were."""
    known = {"type": spec.type, "required": str(spec.required).lower(), "accept": " and ".join(spec.accept)}
    return known | dict(_flat(spec.params))


def _flat(params: Mapping[str, object], lead: str = "") -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{lead}{key} ")
        elif value is not None:
            yield f"{lead}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
