"""Explain one cell in a guarded child: the loss of each step, the layers, and what is odd about the calibration."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.data import open_role
from qpipe.engines import read_engine
from qpipe.errors import QpipeError
from qpipe.execute.jobs import CellJob
from qpipe.execute.work.answering import emulated_rows
from qpipe.execute.work.attributing import (
    ENGINE,
    FLOAT,
    FLOAT_NODES,
    FLOAT_OUTPUTS,
    INT8_OUTPUTS,
    PREPARED,
    QUANTIZED,
    first_rows,
    open_float_nodes,
    open_float_outputs,
    with_cost,
    with_reason,
)
from qpipe.execute.work.bench import Bench
from qpipe.execute.work.cell import build_engine, prepare_model
from qpipe.execute.work.passes import real_batches
from qpipe.measure.evaluation import compare, metric_value
from qpipe.measure.reference import open_reference
from qpipe.measure.rows import judged_first, run_all
from qpipe.metrics import find_metric, is_labelled, measure_units
from qpipe.planning.sources import source_digest
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
    from qpipe.plugins.backend import Progress, Session, Tensors
    from qpipe.plugins.metric import Metric
    from qpipe.records.cell import Cell
    from qpipe.records.engine import Engine, Placement, Prepared
    from qpipe.records.quantization import QuantPlan

LAYER_ROWS = 16
FILE, SPACE = "explanation.json", "explanation"
ORDER = (FLOAT, PREPARED, FLOAT_NODES, FLOAT_OUTPUTS, QUANTIZED, ENGINE)


def run_explanation(request: str, progress: Progress) -> str:
    """Entry of the child: a `CellJob` as JSON → the object that holds the cell's `explanation.json`.

    The cell's role says whose rows are used. What was explained before, of the same engine on the same rows, is found.
    """
    job = decode(CellJob, request)
    registry = load_plugins()
    backend = registry.backend(job.cell.target.backend)
    bench = Bench(job=job, registry=registry, store=Store(job.store), backend=backend, progress=progress)
    role = open_role(job.cell.data, job.cell.role, job.cell.model.signature)
    if job.cell.target.host.rows is not None:
        role = emulated_rows(job.cell, role)

    def make(folder: Path) -> None:
        save_explanation(explain_cell(bench, role), folder)

    return bench.store.made_once(SPACE, explanation_key(job.cell, role), make).name


def explanation_key(cell: Cell, role: Role) -> str:
    """The engine, the rows with whoever judges them, and the code that explains."""
    parts = (
        cell.build.digest,
        cell.label,
        role.digest,
        cell.metric,
        cell.measure.digest,
        source_digest("execute", "quant", "measure"),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def explain_cell(bench: Bench, role: Role) -> Explanation:
    """Everything that there is to say of one cell."""
    cell = bench.cell
    prepared, engine = prepare_model(bench), read_engine(build_engine(bench))
    batch = {name: tensor[:LAYER_ROWS] for name, tensor in next(real_batches(role)).items()}
    bench.progress.step("attribute the loss")
    return Explanation(
        cell=cell.label,
        metric=cell.metric,
        role=cell.role,
        rows=role.rows,
        steps=attribute(bench, prepared, engine, role),
        layers=layers(prepared, engine, batch),
        layer_rows=len(next(iter(batch.values()))),
        placement=engine.placement,
        remarks=remarks(bench, prepared, role),
    )


def save_explanation(explanation: Explanation, folder: Path) -> None:
    """Write it into a folder of the store."""
    (folder / FILE).write_text(encode(explanation))


def load_explanation(folder: Path) -> Explanation:
    """What an object of the store says."""
    return decode(Explanation, (folder / FILE).read_text())


def attribute(bench: Bench, prepared: Prepared, engine: Engine, role: Role) -> tuple[Step, ...]:
    """Float → prepared → quantized ONNX → engine, all fed from one pass over the rows."""
    cell = bench.cell
    sessions: dict[str, Session] = {FLOAT: open_reference(cell.model.file), PREPARED: open_reference(prepared.graph)}
    missing: dict[str, str] = {}
    if prepared.qdq is None:
        missing[QUANTIZED] = "this recipe has no Q/DQ graph"
    else:
        sessions[QUANTIZED] = open_reference(prepared.qdq)
    if (spared := open_float_nodes(prepared, first_rows(next(real_batches(role))))) is not None:
        sessions[FLOAT_NODES] = spared.session
    if (before := open_float_outputs(prepared)) is not None:
        sessions[FLOAT_OUTPUTS] = before
    state = bench.backend.check(cell.target).run
    if isinstance(state, Ready):
        sessions[ENGINE] = bench.backend.open(engine, cell.target)
    else:
        missing[ENGINE] = f"not measured: {state.reason}"
    ran = run_all(sessions, real_batches(role), bench.progress)
    found = {name: judged_first(outputs, cell.data.output) for name, outputs in ran.items()}
    for session in sessions.values():
        session.close()
    metric = find_metric(cell.metric, bench.registry.metrics.values(), cell.folder)
    notes = {FLOAT_NODES: spared.note if spared else "", FLOAT_OUTPUTS: INT8_OUTPUTS, **missing}
    nodes = {FLOAT_NODES: spared.nodes} if spared else {}
    steps = (name for name in ORDER if name in found or name in missing)
    return with_cost(
        tuple(
            _step(name, found, metric, role, note=notes.get(name, ""), nodes=nodes.get(name, ()))
            if name in found
            else Step(name=name, metric=None, sqnr_db=None, note=notes.get(name, ""))
            for name in steps
        )
    )


def _step(
    name: str, found: Mapping[str, Outputs], metric: Metric, role: Role, *, note: str, nodes: tuple[str, ...]
) -> Step:
    rows = Rows(outputs=found[name].tensors, columns=role.columns, label=role.data.label)
    value = metric_value(metric, measure_units(metric, rows)) if is_labelled(metric, rows) else None
    if name == FLOAT:
        return Step(name=name, metric=value, sqnr_db=None)
    step = Step(name=name, metric=value, sqnr_db=compare(found[name], found[FLOAT])[0], note=note, nodes=nodes)
    first = next(iter(found[FLOAT].tensors))
    return with_reason(step, found[FLOAT].tensors[first], found[name].tensors[first])


def layers(prepared: Prepared, engine: Engine, batch: Tensors) -> tuple[Layer, ...]:
    """The quantized tensors of a static plan on these rows; empty where there is no Q/DQ graph."""
    import onnx_ir as ir

    from qpipe.quant.diagnosis.layers import explain_layers
    from qpipe.quant.graph import open_graph

    if prepared.qdq is None or prepared.plan is None:
        return ()
    found = explain_layers(open_graph(prepared.graph.path), ir.load(prepared.qdq.path), prepared.plan, batch)
    ran = kernels(prepared.plan, engine.placement)
    return tuple(replace(one, kernel=ran.get(one.node, ran.get(one.tensor, ""))) for one in found)


def kernels(plan: QuantPlan, placement: Placement | None) -> Mapping[str, str]:
    """The kernel of each node; a Relu or Clip that another node's kernel does has that one's."""
    if placement is None:
        return {}
    known = {one.node: one.kernel for one in placement.nodes}
    absorbed = {choice.node: choice.absorbed_into for choice in plan.nodes if choice.absorbed_into in known}
    return known | {node: known[into] for node, into in absorbed.items()}  # whatever moves its tensor behind that


def remarks(bench: Bench, prepared: Prepared, role: Role) -> tuple[Remark, ...]:
    """The calibration lint, and whether the plan's ranges hold for these rows, all of them."""
    from qpipe.quant.calibration.calibrate import calibrate
    from qpipe.quant.calibration.observed import observed_tensors
    from qpipe.quant.diagnosis.lint import lint_inputs, lint_other_rows
    from qpipe.quant.graph import open_graph

    if prepared.plan is None or not prepared.plan.activations:
        return prepared.remarks
    graph = open_graph(prepared.graph.path)
    bench.progress.step("compare ranges")
    try:
        other = calibrate(graph, real_batches(role), observed_tensors(graph.graph, bench.cell.scheme))
    except QpipeError as error:
        return (*prepared.remarks, Remark(kind="not-checked", subject="calibration", message=error.message))
    odd = lint_inputs(prepared.plan, first_rows(next(real_batches(role))))
    return (*prepared.remarks, *(odd or lint_other_rows(prepared.plan, other)))
