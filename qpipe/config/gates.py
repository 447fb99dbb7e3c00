"""The gates of a pipeline, their parameters checked by their type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qpipe.config.document import KeyPath, read_document
from qpipe.config.names import Names
from qpipe.config.params import read_params
from qpipe.config.problems import Problem, fail, unknown_names, validated
from qpipe.config.text import GatesFileText, GateText
from qpipe.errors import QpipeError, nearest
from qpipe.plugins.gate import GateType
from qpipe.plugins.metric import Metric
from qpipe.records.pipeline import Pipeline
from qpipe.records.verdict import GateSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What gates may refer to."""

    targets: tuple[str, ...]
    recipes: tuple[str, ...] | None
    """None where a search makes recipes of its own."""
    metric: Metric | None
    """None where it is the user's own function, which is not loaded here."""
    slices: tuple[str, ...]
    """Slice columns of the gate rows."""


def read_gates(path: Path, registry: Names, pipeline: Pipeline) -> tuple[GateSpec, ...]:
    """The gates of a file that holds `gates:` alone, checked against the pipeline that they shall judge.

    Raises:
        ConfigError: what is wrong, each with file, line, key and the nearest valid name; all problems at once.
    """
    document = read_document(path, kind="gates")
    text = validated(GatesFileText, document)
    problems = [*other_metrics(text.gates, pipeline.metric)]
    gate_rows = pipeline.data.role("gate")
    demands = Demands(
        targets=tuple(target.name for target in pipeline.targets),
        recipes=None if pipeline.search else tuple(recipe.name for recipe in pipeline.recipes),
        metric=registry.metrics.get(pipeline.metric),
        slices=gate_rows.slices if gate_rows else (),
    )
    gates = choose_gates(text.gates, demands, registry, problems)
    fail(document, problems)
    return gates


def asked_metrics(written: Mapping[str, GateText | None]) -> dict[str, str]:
    """Gate → metric, for the gates that name one."""
    extras = {name: text.__pydantic_extra__ or {} for name, text in written.items() if text is not None}
    return {name: str(extra["metric"]) for name, extra in extras.items() if extra.get("metric")}


def other_metrics(written: Mapping[str, GateText | None], measured: str | None) -> Iterator[Problem]:
    """Gates that name another metric than the one that is measured."""
    for name, metric in asked_metrics(written).items():
        if metric != measured:
            yield Problem(
                at=("gates", name, "metric"),
                message=f"gate {name!r} asks for {metric!r}, the pipeline measures {measured!r}",
                hint="a pipeline measures one metric: set `metric:` to it, and leave it out of the gates",
            )


def taken_along(written: Mapping[str, GateText | None], metric: str | None) -> Iterator[Problem]:
    """Gates without a metric beside one of the same type that asks for another than the task's `metric`.

    They would be judged by it too, and whoever wrote two wants two.
    """
    asked = {name: found for name, found in asked_metrics(written).items() if found != metric}
    types = {name: (text.type if text else None) or name for name, text in written.items()}
    for name, found in asked.items():
        for other, kind in types.items():
            if kind == types[name] and other not in asked and metric is not None:
                yield Problem(
                    at=("gates", name, "metric"),
                    message=f"gate {name!r} asks for {found!r}, and {other!r} for the task's {metric!r}",
                    hint="a pipeline measures one metric: say which as `metric:`, and write a second pipeline",
                )


def choose_gates(
    written: Mapping[str, GateText | None], demands: Demands, names: Names, problems: list[Problem]
) -> tuple[GateSpec, ...]:
    """Gates in the order of the file."""
    return tuple(
        _gate(name, text or GateText.model_validate({}), demands, names, problems) for name, text in written.items()
    )


def _gate(name: str, text: GateText, demands: Demands, names: Names, problems: list[Problem]) -> GateSpec:
    at, kind = ("gates", name), text.type or name
    params = dict(text.__pydantic_extra__ or {})
    try:
        gate = names.gate(kind)
    except QpipeError as error:
        place = (*at, "type") if text.type else at
        problems.append(Problem.of(place, error))
    else:
        problems += _check(gate, params, demands.metric, at)
        problems += _unsliced(kind, params, demands.slices, at)
    problems += unknown_names("target", text.targets, demands.targets, (*at, "targets"))
    if demands.recipes is not None:
        problems += unknown_names("recipe", text.recipes, demands.recipes, (*at, "recipes"))
    return GateSpec(
        name=name,
        type=kind,
        params=params,
        required=text.required,
        recipes=text.recipes,
        targets=text.targets,
        accept=text.accept,
    )


def _check(
    gate: GateType[object], params: Mapping[str, object], metric: Metric | None, at: KeyPath
) -> tuple[Problem, ...]:
    found = read_params(gate.params, params, at)
    if isinstance(found, tuple):
        return tuple(found)
    reason = gate.objection(found, metric) if metric is not None else ""
    return (Problem(at=at, message=f"gate {at[-1]!r}: {reason}"),) if reason else ()


def _unsliced(kind: str, params: Mapping[str, object], slices: tuple[str, ...], at: KeyPath) -> tuple[Problem, ...]:
    """The `slices` gate judges columns that evaluation keeps: those of `data.gate.slices`."""
    by = params.get("by")
    if kind != "slices" or not isinstance(by, str) or by in slices:
        return ()
    message = f"gate {at[-1]!r} judges by {by!r}, which is not in data.gate.slices{nearest(by, slices)}"
    return (Problem(at=(*at, "by"), message=message, hint=f"data.gate.slices: [{', '.join((*slices, by))}]"),)
