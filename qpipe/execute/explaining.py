"""Explain one cell in a guarded child: the loss of each step, the layers, and what is odd about the calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.data import open_role
from qpipe.engines import read_engine
from qpipe.errors import QpipeError
from qpipe.execute.attributing import ENGINE, FLOAT, PREPARED, QUANTIZED
from qpipe.execute.bench import Bench
from qpipe.execute.cell import build_engine, prepare_model
from qpipe.execute.jobs import CellJob
from qpipe.execute.passes import real_batches
from qpipe.measure.evaluation import compare
from qpipe.measure.reference import open_reference
from qpipe.measure.rows import run_all
from qpipe.metrics import find_metric, is_labelled, measure_units
from qpipe.plugins.loader import load_plugins
from qpipe.plugins.metric import Rows
from qpipe.records.codec import decode, encode
from qpipe.records.engine import Ready
from qpipe.records.explanation import Explanation, Layer, Step
from qpipe.records.remark import Remark
from qpipe.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpipe.data import Role
    from qpipe.measure.rows import Outputs
    from qpipe.plugins.backend import Progress, Session
    from qpipe.plugins.metric import Metric
    from qpipe.records.engine import Engine, Prepared

LAYER_ROWS = 16


def run_explanation(request: str, progress: Progress) -> str:
    """Entry of the child: a `CellJob` as JSON → an `Explanation` as JSON. The cell's role says whose rows are used."""
    job = decode(CellJob, request)
    registry = load_plugins()
    backend = registry.backend(job.cell.target.backend)
    bench = Bench(job=job, registry=registry, store=Store(job.store), backend=backend, progress=progress)
    prepared, engine = prepare_model(bench), read_engine(build_engine(bench))
    role = open_role(job.cell.data, job.cell.role, job.cell.model.signature)
    progress.step("attribute the loss")
    return encode(
        Explanation(
            cell=job.cell.label,
            metric=job.cell.metric,
            role=job.cell.role,
            rows=role.rows,
            steps=attribute(bench, prepared, engine, role),
            layers=layers(prepared, role),
            placement=engine.placement,
            remarks=remarks(bench, prepared),
        )
    )


def attribute(bench: Bench, prepared: Prepared, engine: Engine, role: Role) -> tuple[Step, ...]:
    """Float → prepared → quantized ONNX → engine, all fed from one pass over the rows."""
    cell = bench.cell
    sessions: dict[str, Session] = {FLOAT: open_reference(cell.model.file), PREPARED: open_reference(prepared.graph)}
    missing: dict[str, str] = {}
    if prepared.qdq is None:
        missing[QUANTIZED] = "this recipe has no Q/DQ graph"
    else:
        sessions[QUANTIZED] = open_reference(prepared.qdq)
    state = bench.backend.check(cell.target).run
    if isinstance(state, Ready):
        sessions[ENGINE] = bench.backend.open(engine, cell.target)
    else:
        missing[ENGINE] = f"not measured: {state.reason}"
    found = run_all(sessions, real_batches(role), bench.progress)
    for session in sessions.values():
        session.close()
    metric = find_metric(cell.metric, bench.registry.metrics.values(), cell.folder)
    return tuple(
        _step(name, found, metric, role) if name in found else Step(name=name, metric=None, sqnr_db=None, note=why)
        for name, why in ((name, missing.get(name, "")) for name in (FLOAT, PREPARED, QUANTIZED, ENGINE))
    )


def _step(name: str, found: Mapping[str, Outputs], metric: Metric, role: Role) -> Step:
    columns = {column: role.column(column) for column in role.column_names}
    rows = Rows(outputs=found[name].tensors, columns=columns, label=role.data.label)
    units = measure_units(metric, rows) if is_labelled(metric, rows) else None
    value = float(metric.aggregate(units.values)) if units is not None and units.values.size else None
    sqnr = None if name == FLOAT else compare(found[name], found[FLOAT])[0]
    return Step(name=name, metric=value, sqnr_db=sqnr)


def layers(prepared: Prepared, role: Role) -> tuple[Layer, ...]:
    """The quantized tensors of a static plan on a few rows; empty where there is no Q/DQ graph."""
    import onnx_ir as ir

    from qpipe.quant.explain import explain_layers
    from qpipe.quant.graph import open_graph

    if prepared.qdq is None or prepared.plan is None:
        return ()
    batch = {name: tensor[:LAYER_ROWS] for name, tensor in next(real_batches(role)).items()}
    found = explain_layers(open_graph(prepared.graph.path), ir.load(prepared.qdq.path), prepared.plan, batch)
    return tuple(
        Layer(
            tensor=row.tensor,
            node=row.node,
            op=row.op,
            sqnr_db=row.sqnr_db,
            low=row.low,
            high=row.high,
            clipped=row.clipped,
        )
        for row in found
    )


def remarks(bench: Bench, prepared: Prepared) -> tuple[Remark, ...]:
    """The calibration lint, where the recipe calibrates: rows, inputs, ranges against those of the judged rows."""
    from qpipe.quant.calibrate import calibrate
    from qpipe.quant.graph import open_graph
    from qpipe.quant.lint import lint_batches, lint_calibration
    from qpipe.quant.observed import observed_tensors

    cell = bench.cell
    if prepared.plan is None or not prepared.plan.activations:
        return ()
    graph = open_graph(prepared.graph.path)
    judged = open_role(cell.data, cell.role, cell.model.signature)
    calibration = open_role(cell.data, "calibration", cell.model.signature)
    try:
        axes = observed_tensors(graph.graph, cell.scheme)
        own, other = (calibrate(graph, real_batches(role), axes) for role in (calibration, judged))
        found = (*lint_calibration(own, prepared.plan, other), *lint_batches(graph, next(real_batches(judged))))
    except QpipeError as error:
        return (Remark(kind="not-checked", subject="calibration", message=error.message),)
    return tuple(Remark(kind=one.kind, subject=one.subject, message=one.message) for one in found)
