"""Verdicts of all cells, from their evidence and the ledger of looks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.engines import read_engine
from qpipe.flow.cells.claims import rivals
from qpipe.plugins.gate import Alpha
from qpipe.records.evidence import Evaluation, NotMeasured
from qpipe.records.result import CellResult
from qpipe.records.verdict import overall
from qpipe.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpipe.flow.cells.jobs import Worked
    from qpipe.flow.workplace import Workplace
    from qpipe.gates import Family, Look
    from qpipe.plugins.metric import Metric
    from qpipe.plugins.registry import Registry
    from qpipe.records.engine import Engine
    from qpipe.records.evidence import Evidence
    from qpipe.records.verdict import GateSpec, Verdict
    from qpipe.store import Store


def import_scipy() -> None:
    """Import what intervals are computed with. It takes a third of a second, which nobody notices beside work."""
    import scipy.special  # noqa: F401


def decide(
    workplace: Workplace, worked: Sequence[Worked], evidence: Mapping[str, Evidence], *, run_id: str, fresh: bool
) -> tuple[CellResult, ...]:
    """The result of every cell, judged where there is something to judge."""
    from qpipe.metrics import find_metric

    metric = find_metric(workplace.pipeline.metric, workplace.registry.metrics.values(), workplace.pipeline.folder)
    return tuple(
        _decide(workplace, one, evidence.get(one.cell.key), metric, run_id=run_id, fresh=fresh) for one in worked
    )


def _decide(
    workplace: Workplace, one: Worked, evidence: Evidence | None, metric: Metric, *, run_id: str, fresh: bool
) -> CellResult:
    engine = read_engine(workplace.store.folder(one.outcome.engine)) if one.outcome else None
    result = _unjudged(one, engine, evidence)
    if one.outcome is None or engine is None or evidence is None or one.cell.recipe.is_reference:
        return result
    from qpipe.gates import alpha_of, first_gates, with_changes

    family = _family(one, engine)
    look = _look(workplace, one, evidence, family, run_id=run_id, fresh=fresh)
    alpha = alpha_of(look) if look else Alpha()
    recipe, target = one.cell.recipe.name, one.cell.target.name
    gates = [gate for gate in workplace.pipeline.gates if gate.applies(recipe=recipe, target=target)]
    verdicts = judge(
        workplace.store, evidence, gates, metric, workplace.registry, alpha=alpha, recipe=recipe, target=target
    )
    if look:
        first = first_gates(workplace.store, family, gates)
        asked = {name: gate for name, gate in first.items() if gate.applies(recipe=recipe, target=target)}
        verdicts = with_changes(verdicts, gates, asked)
    return replace(with_verdicts(result, verdicts), look=look.number if look else None, alpha=alpha.to_pass)


def judge(
    store: Store,
    evidence: Evidence,
    gates: Sequence[GateSpec],
    metric: Metric,
    registry: Registry,
    *,
    alpha: Alpha,
    recipe: str,
    target: str,
) -> tuple[Verdict, ...]:
    """Decide all gates that apply to one cell, from its evidence folder in the store."""
    from qpipe.gates import decide_cell, load_outcomes

    gate_set = evidence.evaluation.data_digest if isinstance(evidence.evaluation, Evaluation) else ""
    return decide_cell(
        load_outcomes(store.folder(evidence.digest), evidence, metric, gate_set=gate_set),
        gates,
        registry.gates,
        alpha=alpha,
        recipe=recipe,
        target=target,
    )


def with_verdicts(result: CellResult, verdicts: tuple[Verdict, ...]) -> CellResult:
    """The result with its verdicts and what they come to."""
    return replace(result, verdicts=verdicts, decision=overall(verdicts))


def _unjudged(one: Worked, engine: Engine | None, evidence: Evidence | None) -> CellResult:
    if evidence is not None and isinstance(evidence.evaluation, NotMeasured):  # built here, and cannot run here
        missing = evidence.evaluation
        one = replace(one, status="unavailable", reason=missing.reason, hint=missing.hint)
    return CellResult(
        key=one.cell.key,
        model=one.cell.model.name,
        recipe=one.cell.recipe.name,
        target=one.cell.target.name,
        status=one.status,
        cached=one.evidence is not None or one.refused_before,
        reason=one.reason,
        hint=one.hint,
        log_tail=one.log_tail,
        engine=engine,
        evidence=evidence,
        attribution=_metrics_by_step(evidence),
        seconds=one.seconds,
    )


def _metrics_by_step(evidence: Evidence | None) -> tuple[tuple[str, float], ...]:
    steps = evidence.attribution.steps if evidence is not None and evidence.attribution is not None else ()
    return tuple((step.name, step.metric) for step in steps if step.metric is not None)


def _family(one: Worked, engine: Engine) -> Family:
    """What looks are counted for. Other `samples` or another `seed` are further looks at the same rows of the file."""
    from qpipe.data import rows_digest
    from qpipe.gates import Family

    return Family(
        model_digest=one.cell.model.digest,
        target=one.cell.target.name,
        gate_set=rows_digest(one.cell.data, "gate"),
        toolchain=(("qpipe", __version__), *engine.toolchain),
    )


def _look(
    workplace: Workplace, one: Worked, evidence: Evidence, family: Family, *, run_id: str, fresh: bool
) -> Look | None:
    """The look at the gate rows that this cell's evaluation takes; None where nothing was evaluated.

    The same evaluation is the same look, so that a new profile of it costs none.
    """
    from qpipe.gates import record_look

    if not isinstance(evidence.evaluation, Evaluation) or one.outcome is None:
        return None
    demanded = [
        cell
        for cell in workplace.cells
        if not cell.recipe.is_reference and (cell.model, cell.target) == (one.cell.model, one.cell.target)
    ]
    return record_look(
        workplace.store,
        family,
        evidence=one.outcome.evaluation,
        run=run_id,
        finalists=max(rivals(workplace.pipeline.promote, cell, workplace.cells) for cell in demanded),
        declared=len(demanded),
        fresh=fresh,
    )
