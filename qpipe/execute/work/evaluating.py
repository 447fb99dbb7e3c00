"""Evaluate one engine on the gate rows, beside the float model as given, into an evaluation folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.data import open_role
from qpipe.execute.jobs import EvaluationPair
from qpipe.execute.work.answering import Answers, collect_answers
from qpipe.execute.work.attributing import Judged, attribute
from qpipe.execute.work.copying import copies_of, copy_remarks, groups_of
from qpipe.execute.work.pairs import save_pair
from qpipe.execute.work.reference import reference_outputs
from qpipe.gates import save_outcomes
from qpipe.measure.evaluation import evaluate
from qpipe.measure.rows import Outputs, judged_first
from qpipe.metrics import compare_rows, find_metric, is_labelled, measure_units
from qpipe.plugins.metric import Rows
from qpipe.records.cell import Cell, Key
from qpipe.records.codec import digest
from qpipe.records.evidence import Evaluation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpipe.data import Role
    from qpipe.execute.work.bench import Bench
    from qpipe.plugins.metric import Metric, Units
    from qpipe.records.engine import Engine, Prepared


def evaluation_key(cell: Cell, engine: str) -> str:
    """The measure key without the timing protocol, and the engine: a new protocol does not evaluate again.

    Other batch sizes do: outputs are sampled in them, and answers that depend on the batch are judged in the first. So
    does an engine of the same key that came out otherwise: a builder that times kernels may choose others.
    """
    kept = tuple(item for item in cell.measure.ingredients if item.name != "protocol")
    return digest((Key(digest="", ingredients=kept), cell.target.batch_sizes, engine))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Both models on the same rows, by one metric."""

    metric: Metric
    ours: Rows
    theirs: Rows
    engine: Units
    reference: Units
    labelled: bool


def evaluate_engine(bench: Bench, engine: Engine, folder: Path, prepared: Prepared | None = None) -> None:
    """Run the engine over all gate rows, once, and write `evaluation.json` and `evaluation.npz` into `folder`.

    With `prepared` the loss is attributed to the steps on the way to the engine.
    """
    cell, progress = bench.cell, bench.progress
    metric = find_metric(cell.metric, bench.registry.metrics.values(), cell.folder)
    whole = open_role(cell.data, cell.role, cell.model.signature)
    answers = collect_answers(bench, engine, whole)
    progress.step("compare with the float model")
    given = reference_outputs(bench.store, cell.model, answers.role, progress, answers.batch, fresh=bench.job.fresh)
    reference = judged_first(given, cell.data.output)
    measured = _measure(metric, answers, reference)
    pair = _evaluated(cell, whole.digest, answers, reference, measured)
    if prepared is not None:
        pair = _attributed(bench, pair, prepared, answers, reference)
    judged = cell.role == "gate" and not cell.recipe.is_reference
    copies = copies_of(bench, answers.role) if judged else None
    groups = groups_of(answers.role, copies)
    remarks = copy_remarks(answers.role, copies, groups) if copies is not None else ()
    save_pair(folder, replace(pair, remarks=(*pair.remarks, *answers.remarks, *remarks)))
    _save_rows(folder, answers.role, measured, groups)


def _measure(metric: Metric, answers: Answers, reference: Outputs) -> _Measured:
    role = answers.role
    ours = Rows(outputs=answers.outputs.tensors, columns=role.columns, label=role.data.label)
    theirs = replace(ours, outputs=reference.tensors)
    return _Measured(
        metric=metric,
        ours=ours,
        theirs=theirs,
        engine=measure_units(metric, ours),
        reference=measure_units(metric, theirs),
        labelled=is_labelled(metric, ours),
    )


def _evaluated(
    cell: Cell, data_digest: str, answers: Answers, reference: Outputs, measured: _Measured
) -> EvaluationPair:
    """The engine against the float model, and the float model by itself."""
    metric = measured.metric
    guessing = metric.guess(measured.theirs) if metric.guess is not None and measured.labelled else None
    return EvaluationPair(
        engine=evaluate(
            answers.outputs,
            reference,
            measured.engine,
            metric,
            kind=answers.kind,
            role=cell.role,
            data_digest=data_digest,
            outputs_digest=answers.sampled,
        ),
        reference=evaluate(
            reference,
            None,
            measured.reference,
            metric,
            kind="measured",
            role=cell.role,
            data_digest=data_digest,
            outputs_digest="",
            guessing=guessing,
        ),
    )


def _save_rows(folder: Path, role: Role, measured: _Measured, groups: NDArray[np.generic] | None) -> None:
    """What gates decide from, row by row."""
    save_outcomes(
        folder,
        engine=measured.engine,
        reference=measured.reference,
        agreement=compare_rows(measured.metric, measured.ours, measured.theirs),
        groups=groups,
        slices={name: role.column(name) for name in role.spec.slices},
        labelled=measured.labelled,
    )


def _attributed(
    bench: Bench, pair: EvaluationPair, prepared: Prepared, answers: Answers, reference: Outputs
) -> EvaluationPair:
    """The pair with the loss of each step and all remarks on the calibration."""
    if not isinstance(pair.engine, Evaluation) or not isinstance(pair.reference, Evaluation):
        return pair
    bench.progress.step("attribute the loss")
    found = attribute(
        bench.cell.model,
        prepared,
        answers.role,
        float_model=Judged(outputs=reference, evaluation=pair.reference),
        engine=Judged(outputs=answers.outputs, evaluation=pair.engine, computes=answers.computes),
    )
    return replace(pair, attribution=found.attribution, remarks=(*prepared.remarks, *found.remarks))
