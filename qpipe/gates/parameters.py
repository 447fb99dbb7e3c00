"""Parameters of a gate from what the pipeline wrote, with errors that name the gate and the key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass

from qpipe.errors import ConfigError, nearest
from qpipe.plugins.gate import GateType
from qpipe.plugins.metric import Metric
from qpipe.records.verdict import GateSpec


def read_params(gate: GateType[object], spec: GateSpec) -> object:
    """The frozen dataclass of a gate's parameters.

    Raises:
        ConfigError: an unknown key, a missing one or a value of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in fields(gate.params)] if is_dataclass(gate.params) else []
    for key in spec.params:
        if key not in known:
            keys = ", ".join(known) or "none"
            raise ConfigError(f"gate '{spec.name}' has no key '{key}'{nearest(key, known)}", hint=f"its keys: {keys}")
    try:
        return TypeAdapter(gate.params).validate_python(dict(spec.params))
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"gate '{spec.name}': {place}: {first['msg']}", hint=gate.summary) from problem


def gate_type(spec: GateSpec, types: Mapping[str, GateType[object]]) -> GateType[object]:
    """The type that decides for a spec.

    Raises:
        ConfigError: there is none of that name; the message has the nearest one.
    """
    found = types.get(spec.type)
    if found is None:
        known = ", ".join(sorted(types))
        raise ConfigError(f"unknown gate '{spec.type}'{nearest(spec.type, types)}", hint=f"there are: {known}")
    return found


def check_gates(specs: Iterable[GateSpec], types: Mapping[str, GateType[object]], metric: Metric) -> None:
    """Refuse gates that cannot be meant, before any work.

    Raises:
        ConfigError: unknown type or key, wrong value, or parameters that make no sense for the metric.
    """
    for spec in specs:
        found = gate_type(spec, types)
        params = read_params(found, spec)
        if problem := found.objection(params, metric):
            raise ConfigError(f"gate '{spec.name}': {problem}", hint=found.summary)
