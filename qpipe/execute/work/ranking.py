"""Which nodes pay for being quantized: ranked in a guarded child, on the search rows."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from qpipe.data import open_role, role_digest
from qpipe.execute.jobs import Ranking, RankingJob
from qpipe.execute.work.attributing import rows_worth
from qpipe.planning.sources import source_digest
from qpipe.plugins.loader import load_plugins
from qpipe.records.codec import decode, encode
from qpipe.records.recipe import StageSpec
from qpipe.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from qpipe.plugins.backend import Progress, Tensors
    from qpipe.plugins.stage import Draft
    from qpipe.quant.diagnosis.sensitivity import Score
    from qpipe.quant.options import QuantOptions
    from qpipe.records.cell import Cell

SPACE = "rankings"
QUANTIZE, SMOOTH = "quantize", "smooth"


def run_ranking(request: str, progress: Progress) -> str:
    """Entry of the child: a `RankingJob` as JSON → a `Ranking` as JSON, the most sensitive node first.

    A whole ranking is kept: a search that goes on, or is repeated, finds it.
    """
    job, began = decode(RankingJob, request), time.monotonic()
    store, key = Store(job.store), ranking_key(job)
    known = None if job.fresh else store.recall(SPACE, key)
    if known is not None:
        return known
    with TemporaryDirectory() as scratch:
        draft = _before_quantize(job, store, Path(scratch), progress)
        over = _clock(began, job.seconds)
        ranking = rank(job, draft, Path(scratch), over, progress)
    if not ranking.problem and not over():
        store.remember(SPACE, key, encode(ranking))
    return encode(ranking)


def ranking_key(job: RankingJob) -> str:
    """The prepared graph, the rows with what is judged of them, and the code that ranks."""
    rows = f"{role_digest(job.cell.data, job.cell.role)} {job.rows} {job.cell.data.output}"
    parts = (job.cell.prepare.digest, rows, source_digest("execute", "measure"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _clock(began: float, seconds: float | None) -> Callable[[], bool]:
    return lambda: seconds is not None and time.monotonic() - began >= seconds


def rank(job: RankingJob, draft: Draft, folder: Path, over: Callable[[], bool], progress: Progress) -> Ranking:
    """The nodes of a draft by what each costs, until `over`; none of one without statistics."""
    from qpipe.quant.calibration.statistics import load_statistics
    from qpipe.quant.corrections.equalize import equalize
    from qpipe.quant.diagnosis.sensitivity import escape, quantized_nodes, sensitivity
    from qpipe.quant.graph import open_graph

    if draft.statistics is None:
        return Ranking()
    statistics = load_statistics(draft.statistics)
    model = open_graph(_weights_beside(draft.graph.path, folder / "ranked"))
    options, scheme = options_of(job.cell), job.cell.scheme
    total = len(quantized_nodes(model, statistics, scheme, options))
    progress.step("sensitivity")
    found = sensitivity(model, statistics, scheme, _scoring(job, model, progress), options, over=over)
    return Ranking(
        nodes=tuple(escape(one.node) for one in found),
        smooths=draft.graph.path.parent.name.endswith(f"-{SMOOTH}"),  # who wrote the graph last
        equalizes=bool(equalize(model.clone(), None)),
        problem=_late(len(found), total, job.seconds) if len(found) < total else "",
    )


def _weights_beside(path: Path, folder: Path) -> Path:
    """The graph with its weights in a file of their own: each of the many graphs to be run maps them, none copies."""
    import onnx_ir as ir

    folder.mkdir()
    ir.save(ir.load(path), folder / "model.onnx", external_data="weights.bin")
    return folder / "model.onnx"


def _late(done: int, total: int, seconds: float | None) -> str:
    within = f" in the {seconds:.0f} s that this may take" if seconds is not None else ""
    return f"{done} of {total} nodes were ranked{within}"


def _scoring(job: RankingJob, model: ir.Model, progress: Progress) -> Score:
    """SQNR of the judged output on the first rows; a graph that gives NaN or infinity there is the worst."""
    from qpipe.measure.evaluation import sqnr_db
    from qpipe.quant.check import run_feeds

    feeds = first_batches(job.cell, job.rows)
    names, output = [spec.name for spec in job.cell.model.signature.outputs], job.cell.data.output
    judged = 0 if output is None else names.index(output)

    def outputs(graph: ir.Model) -> NDArray[np.float64]:
        return np.concatenate([np.asarray(found[judged], np.float64).ravel() for found in run_feeds(graph, feeds)])

    wanted = outputs(model)

    def score(graph: ir.Model) -> float:
        progress.advance()
        found = outputs(graph)
        if not np.isfinite(found).all():
            return float("-inf")
        sqnr = sqnr_db(wanted, found)
        return float("inf") if sqnr is None else sqnr

    return score


def options_of(cell: Cell) -> QuantOptions:
    """How the recipe's own `quantize` stage quantizes."""
    from qpipe.prepare.run import read_params
    from qpipe.prepare.stages.quantize import QUANTIZE as KIND
    from qpipe.prepare.stages.quantize import QuantizeParams, quant_options

    stage = next((stage for stage in cell.recipe.stages if stage.name == QUANTIZE), StageSpec(name=QUANTIZE))
    params = read_params(KIND, stage)
    assert isinstance(params, QuantizeParams)
    return quant_options(params)


def first_batches(cell: Cell, rows: int) -> tuple[Tensors, ...]:
    """The first rows of the cell's role, fewer of large inputs: one batch, or as many as a small fixed batch needs."""
    role = open_role(cell.data, cell.role, cell.model.signature)
    found: list[Tensors] = []
    for batch in role.batches():
        rows = min(rows, rows_worth(batch)) if not found else rows
        fed = len(next(iter(batch.values()))) if role.fixed is not None else min(rows, batch.rows)  # fixed: filled up
        found.append({name: tensor[:fed] for name, tensor in batch.items()})
        rows -= batch.rows
        if rows <= 0:
            break
    return tuple(found)


def _before_quantize(job: RankingJob, store: Store, folder: Path, progress: Progress) -> Draft:
    """The draft with statistics, as it is when the recipe's `quantize` begins."""
    from qpipe.prepare import run_stages

    cell = job.cell
    names = [stage.name for stage in cell.recipe.stages]
    stages = cell.recipe.stages[: names.index(QUANTIZE)] if QUANTIZE in names else ()

    def batches() -> Iterator[Tensors]:
        yield from open_role(cell.data, "calibration", cell.model.signature).batches()

    registry = load_plugins()
    return run_stages(
        cell.model,
        replace(cell.recipe, stages=stages),
        cell.scheme,
        batches,
        folder,
        lambda key, fill: store.made_once("statistics", key + job.fresh, fill),
        progress,
        calibration_digest=role_digest(cell.data, "calibration"),
        stages=tuple(registry.stages.values()),
        code_of=registry.code_of_stage,
    )
