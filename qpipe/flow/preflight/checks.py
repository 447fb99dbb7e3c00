"""What can be found out before work: data, overlap, labels, folders. Exit code 2 at once instead of 5 after minutes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from qpipe.errors import DataError, TargetError
from qpipe.flow.preflight.operators import check_operators
from qpipe.flow.preflight.probes import try_labels, try_models
from qpipe.flow.workplace import OWN
from qpipe.records.engine import Unavailable
from qpipe.records.model import is_in_mlflow

if TYPE_CHECKING:
    from qpipe.flow.workplace import Workplace
    from qpipe.records.model import Model
    from qpipe.records.pipeline import Pipeline
    from qpipe.records.target import Target


def check_columns(workplace: Workplace) -> None:
    """Check columns, shapes, dtypes, outputs and labels as far as files tell them: what `qpipe plan` looks at.

    Reads the headers of `.npz` files, and of the gate's columns those that no model reads. What functions yield is left
    to the run.

    Raises:
        DataError, ModelError: as `check_before_work`, for what is looked at here.
    """
    from qpipe.data.roles import read_role

    check_operators(workplace)
    data = workplace.pipeline.data
    for model in workplace.models:
        _check_roles(workplace, model)
        for spec in data.roles:
            if spec.npz is not None:
                read_role(data, spec.role, model.signature, digest="")
    gate = data.role("gate")
    if gate is not None and gate.npz is not None:
        try_labels(workplace)


def check_before_work(workplace: Workplace) -> tuple[str, ...]:
    """Open every role for every model, look for overlap, and ask for impossible cells; returns warnings.

    Raises:
        DataError: rows that are missing, broken or mixed between roles; labels that the metric refuses.
        ModelError: a model that the reference runner cannot load, or that no recipe finds anything in.
        TargetError: a demand that no machine can meet.
    """
    _check_targets(workplace)
    check_operators(workplace)
    warnings = _left_out(workplace)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="qpipe-trial") as pool:
        trial = pool.submit(try_models, workplace)  # in a child, while data are looked at here
        for model in workplace.models:
            warnings += [*_check_data(workplace, model), *_declared(model)]
        try_labels(workplace)
        trial.result()
    return tuple(warnings)


def _left_out(workplace: Workplace) -> list[str]:
    """Warnings about broken target files beside the pipeline. It names none of them, or it could not have been read."""
    return [f"{one.reason} ({one.hint})" for one in workplace.registry.problems if one.name.startswith(OWN)]


def _check_targets(workplace: Workplace) -> None:
    for target in workplace.pipeline.targets:
        found = workplace.offers[target.name].availability
        for state in (found.build, found.run):
            if isinstance(state, Unavailable) and state.impossible:
                raise TargetError(f"{target.name}: {state.reason}", hint=state.hint)
        _check_groups(target, workplace.pipeline)


def _check_groups(target: Target, pipeline: Pipeline) -> None:
    torn = next((role.group for role in pipeline.data.roles if role.group and role.role != "calibration"), None)
    if target.host.rows is not None and torn is not None:
        raise TargetError(
            f"{target.name}: {target.host.rows} rows on an emulator would tear groups apart (column '{torn}')",
            hint="leave out `rows` of its host: rows of one group stay together",
        )


def _check_data(workplace: Workplace, model: Model) -> list[str]:
    from qpipe.data import check_overlap, open_role

    data = workplace.pipeline.data
    for spec in data.roles:
        open_role(data, spec.role, model.signature)
    _check_roles(workplace, model)
    overlap = check_overlap(data, model.signature)
    dropped = [f"{overlap.dropped} search rows also stand in gate and were dropped"] if overlap.dropped else []
    return [*dropped, *_unnamed_output(workplace, model)]


def _check_roles(workplace: Workplace, model: Model) -> None:
    pipeline = workplace.pipeline
    if pipeline.data.role("gate") is None:
        raise DataError("the pipeline has no gate data", hint="add data.gate: {npz: FILE}: verdicts come from it")
    calibrates = any(
        workplace.registry.stage(stage.name).needs_calibration
        for cell in workplace.cells
        if cell.model.digest == model.digest
        for stage in cell.recipe.stages
    )
    if calibrates and pipeline.data.role("calibration") is None:
        raise DataError("a recipe calibrates, and the pipeline has no calibration data", hint="add data.calibration")


def _declared(model: Model) -> list[str]:
    """A warning where MLflow holds another signature of a model than its graph has."""
    if not is_in_mlflow(model.origin):
        return []
    from qpipe.tracking import told_otherwise

    return [line] if (line := told_otherwise(model)) else []


def _unnamed_output(workplace: Workplace, model: Model) -> list[str]:
    """A warning where a built-in metric judges the first of several outputs and the pipeline does not say which."""
    pipeline = workplace.pipeline
    names = [spec.name for spec in model.signature.outputs]
    if len(names) == 1 or pipeline.data.output is not None or pipeline.metric not in workplace.registry.metrics:
        return []
    return [f"{model.name} has {len(names)} outputs and {names[0]!r} is judged; data.output: NAME says which should be"]
