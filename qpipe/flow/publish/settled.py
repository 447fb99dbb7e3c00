"""A run that stands in MLflow whole is not logged again, nor MLflow opened, while nobody else wrote to its database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.flow.cells.objects import recall_cell
from qpipe.flow.cells.refusals import recall_refusal
from qpipe.flow.finished.runs import find_run
from qpipe.records.codec import decode, digest, encode
from qpipe.records.engine import Unavailable

if TYPE_CHECKING:
    from qpipe.execute.children.watch import Watch
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.records.cell import Cell
    from qpipe.records.result import CellResult, RunResult
    from qpipe.store import Store

SPACE = "settled"
MOVES = "settled-moves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How MLflow's database was left after a run."""

    experiment: str | None
    promote: bool
    mark: str
    """Changes with every write to the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How a run of ours left a database to which nobody else wrote meanwhile."""

    mark: str
    promoted: tuple[str, ...]
    """Registered models whose alias it moved: who promoted to one of them looks again."""


def settle(workplace: Workplace, options: RunOptions, result: RunResult, *, since: str | None = None) -> None:
    """Remember how the database was left; a server's is not ours to see.

    `since`: its mark before this run, where all that was written from then on is known to be this run's: other runs
    that were settled then are so still.
    """
    mark = database_state(workplace, options)
    if mark is None:
        return
    experiment = workplace.pipeline.tracking.experiment
    text = encode(Settled(experiment=experiment, promote=options.promote, mark=mark))
    workplace.store.remember(SPACE, result.run_id, text)
    if since not in (None, mark):
        moved = Moved(mark=mark, promoted=tuple(one.model for one in result.promoted))
        workplace.store.remember(MOVES, digest(since), encode(moved))


def settled(workplace: Workplace, options: RunOptions, run_id: str, watch: Watch) -> RunResult | None:
    """The result of this very run where all of it is in the store and in MLflow; None where something is to be done.

    Raises:
        StoreError: an engine or its evidence is not what it was.
    """
    if options.offline or options.join is not None or workplace.pipeline.search is not None or _joins():
        return None
    text, kept = workplace.store.recall(SPACE, run_id), find_run(workplace.store, run_id)
    if text is None or kept is None or (known := _known(workplace, kept.result)) is None:
        return None
    left, mark = decode(Settled, text), database_state(workplace, options)
    wanted = (workplace.pipeline.tracking.experiment, options.promote, mark)
    if (left.experiment, left.promote, _moved_on(workplace.store, left.mark, kept.result)) != wanted:
        return None
    for cell, names in zip(workplace.cells, known, strict=True):
        for name in names:
            workplace.store.folder(name)  # verified
        watch.end(cell.label, "cached")
    return replace(kept.result, cells=tuple(replace(cell, cached=True) for cell in kept.result.cells))


def _known(workplace: Workplace, result: RunResult) -> tuple[tuple[str, ...], ...] | None:
    """The objects of each cell; None where one has something to do."""
    before = {cell.key: cell for cell in result.cells}
    found = tuple(_objects(workplace, cell, before.get(cell.key)) for cell in workplace.cells)
    return tuple(names for names in found if names is not None) if None not in found else None


def _objects(workplace: Workplace, cell: Cell, before: CellResult | None) -> tuple[str, ...] | None:
    """What is kept of a cell that is finished, refused, or whose machine is as far away as it was; None of others."""
    known = recall_cell(workplace.store, cell.key)
    if known is not None:
        return known.engine, known.evidence
    if recall_refusal(workplace.store, cell.key) is not None:
        return ()
    if before is None or before.status != "unavailable" or not _is_away(workplace, cell, before.reason):
        return None
    return (before.evidence.digest,) if before.evidence is not None else ()


def _is_away(workplace: Workplace, cell: Cell, reason: str) -> bool:
    state = workplace.offers[cell.target.name].availability
    return reason in {one.reason for one in (state.build, state.run) if isinstance(one, Unavailable)}


def _joins() -> bool:
    from qpipe.tracking import joined_run

    return joined_run() is not None


def _moved_on(store: Store, mark: str, result: RunResult) -> str:
    """The mark of the database after all that runs of ours did to it, as far as it does not concern this one."""
    own = {one.model for one in result.promoted}
    seen = {mark}
    while (text := store.recall(MOVES, digest(mark))) is not None:
        moved = decode(Moved, text)
        if moved.mark in seen or own.intersection(moved.promoted):
            break
        mark = moved.mark
        seen.add(mark)
    return mark


def database_state(workplace: Workplace, options: RunOptions) -> str | None:
    """What changes with every write to a local database; None for a server's."""
    from qpipe.tracking import database_mark

    return database_mark(options.uri(workplace.pipeline), folder=Path.cwd())
