"""Decide a finished run again from its stored evidence, by its own gates or by others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.flow.cells.verdicts import judge, with_verdicts
from qpipe.flow.exitcodes import run_code
from qpipe.flow.finished.runs import recall_run
from qpipe.flow.workplace import open_registry
from qpipe.plugins.gate import Alpha

if TYPE_CHECKING:
    from pathlib import Path

    from qpipe.plugins.metric import Metric
    from qpipe.plugins.registry import Registry
    from qpipe.records.result import CellResult, RunResult
    from qpipe.records.verdict import GateSpec, Verdict
    from qpipe.store import Store


def decide_again(store: Store, run_id: str, gates_file: Path | None) -> RunResult:
    """The run with new verdicts. Nothing is written, looked at in MLflow, or promoted.

    With the run's own gates this repeats its decisions: the alpha of each verdict is the one it had.

    Raises:
        ConfigError: no such run, or a gates file with an error.
    """
    from qpipe.config import read_gates
    from qpipe.metrics import find_metric

    kept = recall_run(store, run_id)
    registry = open_registry(kept.pipeline.folder)
    metric = find_metric(kept.pipeline.metric, registry.metrics.values(), kept.pipeline.folder)
    gates = read_gates(gates_file, registry, kept.pipeline) if gates_file else kept.pipeline.gates
    cells = tuple(_again(cell, store, gates, metric, registry) for cell in kept.result.cells)
    return replace(kept.result, cells=cells, exit_code=run_code(cells, logged=True), promoted=(), warnings=())


def _again(
    cell: CellResult, store: Store, gates: tuple[GateSpec, ...], metric: Metric, registry: Registry
) -> CellResult:
    if cell.decision is None or cell.evidence is None:
        return cell
    verdicts = judge(
        store,
        cell.evidence,
        gates,
        metric,
        registry,
        alpha=Alpha() if cell.alpha is None else Alpha(to_pass=cell.alpha),
        recipe=cell.recipe,
        target=cell.target,
    )
    return with_verdicts(cell, _as_noted(verdicts, cell.verdicts))


def _as_noted(verdicts: tuple[Verdict, ...], before: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """With what was noted of gates that asked for something else at the first look."""
    from qpipe.gates import is_change

    said = {verdict.gate: (verdict.limit, tuple(filter(is_change, verdict.notes))) for verdict in before}
    return tuple(
        replace(one, notes=(*one.notes, *said[one.gate][1])) if said.get(one.gate, (None,))[0] == one.limit else one
        for one in verdicts
    )
