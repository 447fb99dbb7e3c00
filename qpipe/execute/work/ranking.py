"""Which nodes pay for being quantized: ranked in a guarded child, on the search rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from qpipe.data import open_role, role_digest
from qpipe.execute.jobs import Ranking, RankingJob
from qpipe.execute.work.passes import real_batches
from qpipe.plugins.loader import load_plugins
from qpipe.records.codec import decode, encode
from qpipe.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from qpipe.plugins.backend import Progress, Tensors
    from qpipe.plugins.stage import Draft
    from qpipe.records.cell import Cell

QUANTIZE, SMOOTH = "quantize", "smooth"


def run_ranking(request: str, progress: Progress) -> str:
    """Entry of the child: a `RankingJob` as JSON → a `Ranking` as JSON, the most sensitive node first."""
    from qpipe.measure.evaluation import sqnr_db
    from qpipe.quant.calibration.statistics import load_statistics
    from qpipe.quant.check import run_float
    from qpipe.quant.corrections.equalize import equalize
    from qpipe.quant.diagnosis.sensitivity import escape, sensitivity
    from qpipe.quant.graph import open_graph

    job = decode(RankingJob, request)
    with TemporaryDirectory() as scratch:
        draft = _before_quantize(job.cell, Store(job.store), Path(scratch), progress)
        if draft.statistics is None:
            return encode(Ranking())
        model, statistics = open_graph(draft.graph.path), load_statistics(draft.statistics)
        feed = first_rows(job.cell, job.rows)
        names, output = [spec.name for spec in job.cell.model.signature.outputs], job.cell.data.output
        judged = 0 if output is None else names.index(output)
        wanted = np.asarray(run_float(model, feed)[judged], np.float64)

        def score(graph: ir.Model) -> float:
            progress.advance()
            found = sqnr_db(wanted, np.asarray(run_float(graph, feed)[judged], np.float64))
            return float("inf") if found is None else found

        progress.step("sensitivity")
        found = sensitivity(model, statistics, job.cell.scheme, score)
        ranking = Ranking(
            nodes=tuple(escape(one.node) for one in found),
            smooths=draft.graph.path.parent.name.endswith(f"-{SMOOTH}"),  # who wrote the graph last
            equalizes=bool(equalize(model.clone(), None)),
        )
    return encode(ranking)


def first_rows(cell: Cell, rows: int) -> Tensors:
    """The first batch of the cell's role, at most `rows` rows."""
    batch = next(real_batches(open_role(cell.data, cell.role, cell.model.signature)))
    return {name: tensor[:rows] for name, tensor in batch.items()}


def _before_quantize(cell: Cell, store: Store, folder: Path, progress: Progress) -> Draft:
    """The draft with statistics, as it is when the recipe's `quantize` begins."""
    from qpipe.prepare import run_stages

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
        lambda key, fill: store.made_once("statistics", key, fill),
        progress,
        calibration_digest=role_digest(cell.data, "calibration"),
        stages=tuple(registry.stages.values()),
        code_of=registry.code_of_stage,
    )
