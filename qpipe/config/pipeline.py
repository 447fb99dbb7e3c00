"""A pipeline file as a `Pipeline` record."""

from __future__ import annotations

import re
from pathlib import Path

from qpipe.config.base import read_over_base, with_its_name
from qpipe.config.gates import Demands, asked_metrics, choose_gates, other_metrics, taken_along
from qpipe.config.names import Names
from qpipe.config.paths import expand_variables
from qpipe.config.problems import Problem, fail, tolerated
from qpipe.config.recipes import Recipes, choose_recipes, needs_calibration, unknown_targets
from qpipe.config.rows import read_data
from qpipe.config.sources import read_sources
from qpipe.config.targets import choose_targets
from qpipe.config.text import MetricText, PipelineText, ProfileText, PromoteText, TrackingText
from qpipe.errors import QpipeError, nearest
from qpipe.records.cell import Timing
from qpipe.records.data import DataSpec
from qpipe.records.pipeline import Pipeline, PromoteSpec, TrackingSpec
from qpipe.records.task import TASKS

_PLACEHOLDERS = ("model", "target", "recipe")


def read_pipeline(path: Path, registry: Names, *, folder: Path | None = None) -> Pipeline:
    """Read and check a pipeline file over its base: every key, name, parameter and reference. Opens no model, no data.

    Relative paths start at `folder`, by default that of the file.

    Raises:
        ConfigError: what is wrong, each with file, line, key and the nearest valid name; all problems at once.
    """
    document = with_its_name(read_over_base(path, kind="pipeline"))
    text, unknown = tolerated(PipelineText, document)
    problems = [*unknown]
    pipeline = _assemble(text, (folder or path.parent).resolve(), registry, problems)
    fail(document, problems)
    return pipeline


def _assemble(text: PipelineText, folder: Path, names: Names, problems: list[Problem]) -> Pipeline:
    data = read_data(text.data, folder, problems)
    targets = choose_targets(text.targets, names, problems)
    recipes, search = choose_recipes(text.recipes, names, problems)
    problems += unknown_targets(text.recipes, tuple(target.name for target in targets))
    metric = _metric(text, names, problems)
    demands = Demands(
        targets=tuple(target.name for target in targets),
        recipes=None if search else tuple(recipe.name for recipe in recipes),
        metric=names.metrics.get(metric),
        slices=text.data.gate.slices,
    )
    if not problems:
        problems += _missing_roles(data, (recipes, search), names)
    return Pipeline(
        name=text.name,
        folder=folder,
        models=read_sources(text, folder, problems),
        metric=metric,
        task=text.task,
        data=data,
        targets=targets,
        recipes=recipes,
        gates=choose_gates(text.gates, demands, names, problems),
        search=search,
        promote=_promote(text.promote, problems),
        tracking=_tracking(text.tracking, problems),
        timing=_timing(text.profile, problems),
        store=_expanded(text.store, ("store",), problems),
    )


def _metric(text: PipelineText, names: Names, problems: list[Problem]) -> str:
    """The metric that is measured: as written, or what all gates ask for, or the task's."""
    if text.task is not None and text.task not in TASKS:
        message = f"unknown task {text.task!r}{nearest(text.task, TASKS)}"
        problems.append(Problem(at=("task",), message=message, hint=f"tasks: {', '.join(TASKS)}"))
    asked = asked_metrics(text.gates)
    written = text.metric.fn if isinstance(text.metric, MetricText) else text.metric
    chosen = written or next(iter(asked.values()), None) or TASKS.get(text.task or "")
    if chosen is None and text.task is None:
        problems.append(Problem(at=(), message="the file names neither task nor metric", hint="task: classification"))
    problems += other_metrics(text.gates, chosen)
    if not written:
        problems += taken_along(text.gates, TASKS.get(text.task or ""))
    at = ("metric",) if written else ("gates", next(iter(asked), ""), "metric")
    if chosen is not None and ":" not in chosen:
        try:
            names.metric(chosen)
        except QpipeError as error:
            problems.append(Problem.of(at, error))
    return chosen or ""


def _missing_roles(data: DataSpec, chosen: Recipes, names: Names) -> tuple[Problem, ...]:
    recipes, search = chosen
    calibrated = [r.name for r in (*recipes, *(search.candidates if search else ())) if needs_calibration(r, names)]
    found = []
    if calibrated and data.role("calibration") is None:
        message = f"recipe {calibrated[0]!r} needs data.calibration, which is missing"
        found.append(Problem(at=("data",), message=message, hint="calibration: {npz: FILE, samples: 256}"))
    if search and data.role("search") is None:
        message = "a search needs data.search, which is missing"
        found.append(
            Problem(at=("data",), message=message, hint="search: {npz: FILE}, with rows that gate does not have")
        )
    return tuple(found)


def _promote(text: PromoteText | None, problems: list[Problem]) -> PromoteSpec | None:
    if text is None:
        return None
    for name in re.findall(r"\{([^}]*)\}", text.model):
        if name not in _PLACEHOLDERS:
            message = f"unknown placeholder {{{name}}} in promote.model{nearest(name, _PLACEHOLDERS)}"
            problems.append(Problem(at=("promote", "model"), message=message, hint="{model}, {target} and {recipe}"))
    left = re.sub(r"\{[^}]*\}", "", text.model)
    if not re.fullmatch(r"[A-Za-z0-9 ._-]*", left) or not text.model:
        message = f"promote.model {text.model!r} has characters that no model name may have"
        problems.append(
            Problem(at=("promote", "model"), message=message, hint="letters, digits, . _ - and placeholders")
        )
    if text.alias == "latest" or re.fullmatch(r"[vV]\d+", text.alias):
        message = f"promote.alias {text.alias!r} is reserved by MLflow"
        problems.append(Problem(at=("promote", "alias"), message=message, hint="e.g. champion"))
    return PromoteSpec(model=text.model, alias=text.alias)


def _tracking(text: TrackingText, problems: list[Problem]) -> TrackingSpec:
    return TrackingSpec(uri=_expanded(text.uri, ("tracking", "uri"), problems), experiment=text.experiment)


def _timing(text: ProfileText, problems: list[Problem]) -> Timing:
    if text.blocks > text.rounds or text.rounds > text.max_rounds:
        message = "profile needs blocks ≤ rounds ≤ max_rounds"
        problems.append(Problem(at=("profile",), message=message, hint="blocks: 4, rounds: 40, max_rounds: 4000"))
    return Timing(
        processes=text.processes,
        rounds=text.rounds,
        blocks=text.blocks,
        min_seconds=text.min_seconds,
        max_rounds=text.max_rounds,
        warmup=text.warmup,
        memory_processes=text.memory_processes,
    )


def _expanded(text: str | None, at: tuple[str, ...], problems: list[Problem]) -> str | None:
    try:
        return None if text is None else expand_variables(text)
    except QpipeError as error:
        problems.append(Problem.of(at, error))
        return None
