"""Evaluate one engine on the gate rows, beside the float model as given, into an evaluation folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from qpipe.data import open_role
from qpipe.execute.jobs import EvaluationPair
from qpipe.execute.work.attributing import Judged, attribute
from qpipe.execute.work.outputs import are_small, kept_outputs, outputs_key
from qpipe.execute.work.pairs import save_pair
from qpipe.execute.work.passes import LIGHT_BYTES, count_batches, light_batches, real_batches
from qpipe.execute.work.reference import reference_outputs
from qpipe.gates import save_outcomes
from qpipe.measure.evaluation import evaluate
from qpipe.measure.feeds import digest_outputs, make_feeds
from qpipe.measure.reference import reference_computation
from qpipe.measure.rows import Outputs, judged_first, run_rows
from qpipe.metrics import compare_rows, find_metric, is_labelled, measure_units
from qpipe.planning.sources import source_digest
from qpipe.plugins.backend import Remarking
from qpipe.plugins.metric import Rows
from qpipe.records.cell import Cell, Key
from qpipe.records.codec import digest
from qpipe.records.data import DataSpec, RoleName
from qpipe.records.evidence import Evaluation
from qpipe.records.remark import Remark

if TYPE_CHECKING:
    from qpipe.data import Role
    from qpipe.execute.work.bench import Bench
    from qpipe.plugins.backend import Session
    from qpipe.records.engine import Engine, Prepared


FEW = 128
"""Rows of a float engine under an emulator: floats are computed in software there, up to twenty times slower."""


def evaluation_key(cell: Cell) -> str:
    """The measure key without the timing protocol: a new protocol does not evaluate again."""
    kept = tuple(item for item in cell.measure.ingredients if item.name != "protocol")
    return digest(Key(digest="", ingredients=kept))


def evaluate_engine(bench: Bench, engine: Engine, folder: Path, prepared: Prepared | None = None) -> None:
    """Run the engine over all gate rows, once, and write `evaluation.json` and `evaluation.npz` into `folder`.

    With `prepared` the loss is attributed to the steps on the way to the engine.
    """
    cell, progress = bench.cell, bench.progress
    metric = find_metric(cell.metric, bench.registry.metrics.values(), cell.folder)
    whole = open_role(cell.data, cell.role, cell.model.signature)
    session = bench.backend.open(engine, cell.target)
    role = emulated_rows(cell, whole) if session.kind == "emulated" else whole
    try:
        progress.step("evaluate", total=count_batches(role))
        outputs = judged_first(run_once(bench, session, role), cell.data.output)
        said = session.remarks if isinstance(session, Remarking) else ()  # of these rows, before others are run
        feeds = make_feeds(real_batches(whole), cell.target.batch_sizes, cell.model.signature)
        kind, sampled = session.kind, digest_outputs(session, feeds)
        computes = str(getattr(session, "computes", ""))
        if role.rows < whole.rows:
            said = (*said, f"ran {role.rows:,} of {whole.rows:,} rows: {_why_fewer(cell)}")
    finally:
        session.close()
    progress.step("compare with the float model")
    given = reference_outputs(bench.store, cell.model, role, progress)
    reference = judged_first(given, cell.data.output)
    ours, theirs = _rows(outputs, role), _rows(reference, role)
    labelled = is_labelled(metric, ours)
    units, reference_units = measure_units(metric, ours), measure_units(metric, theirs)
    pair = EvaluationPair(
        engine=evaluate(
            outputs,
            reference,
            units,
            metric,
            kind=kind,
            role=cell.role,
            data_digest=whole.digest,
            outputs_digest=sampled,
        ),
        reference=evaluate(
            reference,
            None,
            reference_units,
            metric,
            kind="measured",
            role=cell.role,
            data_digest=whole.digest,
            outputs_digest="",
            guessing=metric.guess(theirs) if metric.guess is not None and labelled else None,
        ),
    )
    if prepared is not None:
        pair = _attributed(bench, pair, prepared, role, Sides(outputs, reference, computes))
    said_there = tuple(Remark(kind="device", subject=cell.target.name, message=line) for line in said)
    save_pair(folder, replace(pair, remarks=(*pair.remarks, *said_there)))
    save_outcomes(
        folder,
        engine=units,
        reference=reference_units,
        agreement=compare_rows(metric, ours, theirs),
        groups=role.column(role.spec.group) if role.spec.group else None,
        slices={name: role.column(name) for name in role.spec.slices},
        labelled=labelled,
    )


def emulated_rows(cell: Cell, whole: Role) -> Role:
    """The rows that an emulator runs: as many as the target's host says, else all, but few for a float engine.

    They are part of the rows that the role draws, whose digest the evaluation keeps: a sample is no other gate set.
    """
    wanted = cell.target.host.rows or (FEW if cell.recipe.is_reference else whole.rows)
    if wanted >= whole.rows or whole.spec.group is not None:
        return whole
    return open_role(_some_rows(cell.data, cell.role, wanted), cell.role, cell.model.signature)


def _why_fewer(cell: Cell) -> str:
    if cell.target.host.rows is not None:
        return "so says the target's host"
    return "this is the float engine, emulated floats are slow, nobody gates it"


def _some_rows(data: DataSpec, name: RoleName, samples: int) -> DataSpec:
    """The data with a sample of one role; a larger sample of the same seed has the same rows and more."""
    roles = tuple(replace(one, samples=samples) if one.role == name else one for one in data.roles)
    return replace(data, roles=roles)


class Sides(NamedTuple):
    """Outputs of both sides of an evaluation, and the name of what the engine computes."""

    engine: Outputs
    reference: Outputs
    computes: str


def _attributed(bench: Bench, pair: EvaluationPair, prepared: Prepared, role: Role, sides: Sides) -> EvaluationPair:
    """The pair with the loss of each step and all remarks on the calibration."""
    if not isinstance(pair.engine, Evaluation) or not isinstance(pair.reference, Evaluation):
        return pair
    bench.progress.step("attribute the loss")
    found = attribute(
        bench.cell.model,
        prepared,
        role,
        float_model=Judged(outputs=sides.reference, evaluation=pair.reference),
        engine=Judged(outputs=sides.engine, evaluation=pair.engine, computes=sides.computes),
    )
    return replace(pair, attribution=found.attribution, remarks=(*prepared.remarks, *found.remarks))


def run_once(bench: Bench, session: Session, role: Role) -> Outputs:
    """Outputs over all rows; what a digest can name is not computed twice.

    A session that computes exactly what another one does (the same bytes, runtime and settings) shares its outputs,
    unless a fresh run is asked for: the float engine of ONNX Runtime on the CPU those of the reference runner, and two
    recipes that come to the same graph each other's.
    """
    model = bench.cell.model
    computes = getattr(session, "computes", "")

    def compute() -> Outputs:
        return run_rows(session, light_batches(role), bench.progress)

    if not computes or bench.job.fresh:
        return compute()
    if computes == reference_computation(model.file):
        return reference_outputs(bench.store, model, role, bench.progress)
    if not are_small(session.signature, role.rows):
        return compute()
    device = next(item.value for item in bench.cell.measure.ingredients if item.name == "device")
    parts = (computes, device, digest(session.signature), role.digest, str(LIGHT_BYTES), source_digest("measure"))
    return kept_outputs(bench.store, "outputs", outputs_key(*parts), compute)


def _rows(outputs: Outputs, role: Role) -> Rows:
    columns = {name: role.column(name) for name in role.column_names}
    return Rows(outputs=outputs.tensors, columns=columns, label=role.data.label)
