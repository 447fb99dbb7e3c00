"""Where the loss comes from, beside every evaluation: the steps between float model and engine on a few rows.

The outputs of the float model and of the engine are at hand; a step that computes the same as one of them is not run
again. What is left is most often one run of the prepared float graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qpipe.errors import QpipeError
from qpipe.execute.work.passes import real_batches
from qpipe.measure.evaluation import sqnr_db, without_sqnr
from qpipe.measure.reference import open_reference, reference_computation
from qpipe.measure.rows import run_rows
from qpipe.records.explanation import Attribution, Step
from qpipe.records.remark import Remark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from qpipe.data import Role
    from qpipe.measure.rows import Outputs
    from qpipe.plugins.backend import Session, Tensors
    from qpipe.records.engine import Prepared
    from qpipe.records.evidence import Evaluation
    from qpipe.records.model import Model, OnnxFile

FLOAT, PREPARED, QUANTIZED, ENGINE = "float", "prepared", "quantized", "engine"
FLOAT_OUTPUTS = "float outputs"
"""A step between `prepared` and `quantized`, for runtimes that write integers at the end too."""
FLOAT_NODES = "float nodes"
"""A step before that one, for targets that quantize what others leave in float (the first convolution of an image,
products of two activations): two targets of one recipe may differ by this alone."""
INT8_OUTPUTS = "quantized, but for the int8 output of the last layer"
_PROTOBUF_BYTES = 2**31 - 1
_NAMED = 3
ROWS, FEWEST, VALUES = 16, 4, 2**19
"""Rows of SQNR and of the look at ranges: who owns a loss is plain from few, and every cell pays for them. Of large
inputs (more than so many values in all) fewer, but some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Outputs over all rows, what they are worth, and the name of the computation where it has one."""

    outputs: Outputs
    evaluation: Evaluation
    computes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """The steps, and what is odd about the plan's ranges on these rows."""

    attribution: Attribution
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What every step is compared on."""

    model: Model
    prepared: Prepared
    float: Judged
    engine: Judged
    batch: Tensors
    rows: int


def attribute(model: Model, prepared: Prepared, role: Role, *, float_model: Judged, engine: Judged) -> Attributed:
    """Float → prepared → quantized ONNX → engine on the first rows that judged the engine.

    SQNR is over those rows. A metric stands only at steps whose outputs over all rows are known, since that of a few
    rows would say little. A step that does not run here says why.
    """
    batch = first_rows(next(real_batches(role)))
    rows = len(next(iter(batch.values())))
    ground = _Ground(model=model, prepared=prepared, float=float_model, engine=engine, batch=batch, rows=rows)
    halfway, remarks = _prepared(ground)
    steps = (
        Step(name=FLOAT, metric=float_model.evaluation.value, sqnr_db=None),
        halfway,
        *_float_nodes(ground),
        *_float_outputs(ground),
        _quantized(ground),
        _known(ENGINE, engine, ground),
    )
    found = Attribution(role=engine.evaluation.role, rows=rows, steps=with_cost(steps))
    return Attributed(attribution=found, remarks=remarks)


def with_cost(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps, where nodes that are float in one and integers in the next have their cost in the note."""
    after = (*steps[1:], None)
    return tuple(_with_cost(step, later) for step, later in zip(steps, after, strict=True))


def _with_cost(step: Step, later: Step | None) -> Step:
    cost = step.cost_of_nodes(later)
    return replace(step, note=f"{step.note}: {cost}") if cost else step


def with_reason(step: Step, float_model: NDArray[np.generic], found: NDArray[np.generic]) -> Step:
    """The step; where it has no SQNR, its note says why, after all that it says already."""
    why = "" if step.sqnr_db is not None else without_sqnr(float_model, found)
    return replace(step, note="; ".join(part for part in (step.note, why) if part))


def first_rows(batch: Tensors) -> Tensors:
    """As many rows of a batch as a look is worth."""
    count = rows_worth(batch)
    return {name: tensor[:count] for name, tensor in batch.items()}


def rows_worth(batch: Tensors) -> int:
    """How many rows like these a look is worth."""
    per_row = sum(tensor[:1].size for tensor in batch.values())
    return min(ROWS, max(FEWEST, VALUES // max(per_row, 1)))


def _prepared(ground: _Ground) -> tuple[Step, tuple[Remark, ...]]:
    prepared = ground.prepared
    if prepared.graph.digest == ground.model.digest:
        return _known(PREPARED, ground.float, ground, note="the model as given"), ()
    if _is_engine(prepared.graph, ground):
        return _known(PREPARED, ground.engine, ground, note="what the engine runs"), ()
    try:
        if prepared.plan is None or prepared.plan.mode != "static":
            return _run(PREPARED, prepared.graph, ground), ()
        return _watched(ground)
    except QpipeError as error:
        return _missing(PREPARED, f"not run: {error.message}"), ()


def _watched(ground: _Ground) -> tuple[Step, tuple[Remark, ...]]:
    """The prepared graph of a static plan: the same run shows whether its ranges hold for these rows."""
    from qpipe.quant.diagnosis.clipping import run_watched
    from qpipe.quant.diagnosis.lint import lint_inputs, lint_shares
    from qpipe.quant.graph import open_graph

    assert ground.prepared.plan is not None
    found = run_watched(open_graph(ground.prepared.graph.path), ground.prepared.plan, ground.batch)
    step = _compared(Step(name=PREPARED, metric=None, sqnr_db=None), dict(found.outputs), ground)
    odd = lint_inputs(ground.prepared.plan, ground.batch)  # where there is such a cause, its effects say no more
    return step, odd or lint_shares(ground.prepared.plan, dict(found.shares))


def _quantized(ground: _Ground) -> Step:
    qdq = ground.prepared.qdq
    if qdq is None:
        return _missing(QUANTIZED, "this recipe has no Q/DQ graph")
    if _is_engine(qdq, ground):
        return _known(QUANTIZED, ground.engine, ground, note="what the engine runs")
    try:
        return _run(QUANTIZED, qdq, ground)
    except QpipeError as error:
        return _missing(QUANTIZED, f"not run: {error.message}")


class FloatNodes(NamedTuple):
    """The Q/DQ graph with some nodes in float, and their names."""

    session: Session
    nodes: tuple[str, ...]
    note: str


def open_float_nodes(prepared: Prepared, rows: Tensors) -> FloatNodes | None:
    """The Q/DQ graph with those nodes in float that some target leaves there; None where the plan has none of them.

    The target is onnxruntime on x86 without packs of pixels: of all schemes it has the most of them.

    Raises:
        QpipeError: it could not be made or loaded.
    """
    from qpipe.quant.schemes import ORT_X86_AVX2 as LIKE

    plan = prepared.plan
    if prepared.qdq is None or plan is None or plan.mode != "static" or prepared.graph.size_bytes > _PROTOBUF_BYTES:
        return None
    from qpipe.quant.diagnosis.choices import may_spare, spare
    from qpipe.quant.graph import open_graph, save_graph

    spared = spare(open_graph(prepared.graph.path), plan, LIKE, rows) if may_spare(plan, LIKE) else None
    if spared is None:
        return None
    with TemporaryDirectory() as scratch:
        path = save_graph(spared.qdq, Path(scratch) / "model.onnx")
        session = _open_with_float_outputs(path) or open_reference(path)
    names = ", ".join(spared.nodes[:_NAMED]) + (f" and {more} more" if (more := len(spared.nodes) - _NAMED) > 0 else "")
    return FloatNodes(session, spared.nodes, f"quantized, but for {names}")


def _float_nodes(ground: _Ground) -> tuple[Step, ...]:
    """What the graph is worth with fewer nodes quantized, and those nodes."""
    try:
        opened = open_float_nodes(ground.prepared, ground.batch)
        if opened is None:
            return ()
        found = run_rows(opened.session, [ground.batch])
    except QpipeError as error:
        return (_missing(FLOAT_NODES, f"not run: {error.message}"),)
    opened.session.close()
    step = Step(name=FLOAT_NODES, metric=None, sqnr_db=None, note=opened.note, nodes=opened.nodes)
    return (_compared(step, found.tensors, ground),)


def open_float_outputs(prepared: Prepared) -> Session | None:
    """The Q/DQ graph before its outputs are quantized, or None where they are not."""
    qdq = prepared.qdq
    return None if qdq is None or qdq.size_bytes > _PROTOBUF_BYTES else _open_with_float_outputs(qdq.path)


def _open_with_float_outputs(qdq: Path) -> Session | None:
    import onnx

    from qpipe.quant.rendering.outputs import with_float_outputs

    model = with_float_outputs(qdq)
    if model is None:
        return None
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / qdq.name
        onnx.save(model, path)
        return open_reference(path)


def _float_outputs(ground: _Ground) -> tuple[Step, ...]:
    """What the graph is worth before its outputs are quantized: a runtime with int8 outputs owns the rest."""
    try:
        session = open_float_outputs(ground.prepared)
        if session is None:
            return ()
        found = run_rows(session, [ground.batch])
    except QpipeError as error:
        return (_missing(FLOAT_OUTPUTS, f"not run: {error.message}"),)
    session.close()
    step = Step(name=FLOAT_OUTPUTS, metric=None, sqnr_db=None, note=INT8_OUTPUTS)
    return (_compared(step, found.tensors, ground),)


def _is_engine(file: OnnxFile, ground: _Ground) -> bool:
    """Whether the engine computes exactly what the reference runner makes of this file."""
    return bool(ground.engine.computes) and ground.engine.computes == reference_computation(file)


def _run(name: str, file: OnnxFile, ground: _Ground) -> Step:
    session = open_reference(file)
    found = run_rows(session, [ground.batch])
    session.close()
    return _compared(Step(name=name, metric=None, sqnr_db=None), found.tensors, ground)


def _known(name: str, judged: Judged, ground: _Ground, note: str = "") -> Step:
    step = Step(name=name, metric=judged.evaluation.value, sqnr_db=None, note=note)
    return step if judged is ground.float else _compared(step, judged.outputs.tensors, ground)


def _missing(name: str, why: str) -> Step:
    return Step(name=name, metric=None, sqnr_db=None, note=why)


def _compared(step: Step, found: Mapping[str, NDArray[np.generic]], ground: _Ground) -> Step:
    """The step with the SQNR of its first output; where rows were filled up to different lengths, of what both have."""
    name = next(iter(ground.float.outputs.tensors))
    theirs = np.asarray(ground.float.outputs.tensors[name][: ground.rows], np.float64)
    ours = np.asarray(found[name][: ground.rows], np.float64)
    common = tuple(slice(min(sizes)) for sizes in zip(theirs.shape, ours.shape, strict=True))
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity come out as None
        sqnr = sqnr_db(theirs[common], ours[common])
    return with_reason(replace(step, sqnr_db=sqnr), theirs[common], ours[common])
