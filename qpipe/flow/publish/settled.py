"""A run that stands in MLflow whole is not logged again, nor MLflow opened, while nobody wrote to its database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.flow.cells.jobs import recall_cell
from qpipe.flow.finished.runs import find_run
from qpipe.records.codec import decode, encode

if TYPE_CHECKING:
    from qpipe.execute.children.watch import Watch
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.records.result import RunResult

SPACE = "settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How MLflow's database was left after a run."""

    experiment: str | None
    promote: bool
    mark: str
    """Changes with every write to the database."""


def settle(workplace: Workplace, options: RunOptions, result: RunResult) -> None:
    """Remember how the database was left; a server's is not ours to see."""
    mark = _mark(workplace, options)
    if mark is not None:
        experiment = workplace.pipeline.tracking.experiment
        text = encode(Settled(experiment=experiment, promote=options.promote, mark=mark))
        workplace.store.remember(SPACE, result.run_id, text)


def settled(workplace: Workplace, options: RunOptions, run_id: str, watch: Watch) -> RunResult | None:
    """The result of this very run where all of it is in the store and in MLflow; None where something is to be done.

    Raises:
        StoreError: an engine or its evidence is not what it was.
    """
    if options.offline or options.join is not None or workplace.pipeline.search is not None or _joins():
        return None
    text, kept = workplace.store.recall(SPACE, run_id), find_run(workplace.store, run_id)
    known = [recall_cell(workplace.store, cell.key) for cell in workplace.cells]
    if text is None or kept is None or None in known:
        return None
    left, mark = decode(Settled, text), _mark(workplace, options)
    wanted = (workplace.pipeline.tracking.experiment, options.promote, mark)
    if (left.experiment, left.promote, left.mark) != wanted:
        return None
    for cell, found in zip(workplace.cells, known, strict=True):
        for name in (found.engine, found.evidence) if found is not None else ():
            workplace.store.folder(name)  # verified
        watch.end(cell.label, "cached")
    return replace(kept.result, cells=tuple(replace(cell, cached=True) for cell in kept.result.cells))


def _joins() -> bool:
    from qpipe.tracking import joined_run

    return joined_run() is not None


def _mark(workplace: Workplace, options: RunOptions) -> str | None:
    from qpipe.tracking import database_mark

    return database_mark(options.uri(workplace.pipeline), folder=Path.cwd())
