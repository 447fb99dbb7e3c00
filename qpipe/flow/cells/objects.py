"""Cells that need no work: their objects are in the store under their measure keys, or they were refused for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.flow.cells.refusals import recall_refusal
from qpipe.records.codec import decode, encode

if TYPE_CHECKING:
    from qpipe.records.cell import Cell
    from qpipe.store import Store

SPACE = "cells"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellObjects:
    """Objects of a cell that is wholly done: what its measure key names in the store."""

    engine: str
    evaluation: str
    evidence: str


def remember_cell(store: Store, key: str, objects: CellObjects) -> None:
    """Keep what became of a cell that is wholly done."""
    store.remember(SPACE, key, encode(objects))


def recall_cell(store: Store, key: str) -> CellObjects | None:
    """The objects of a cell that was finished before, all of them still there."""
    text = store.recall(SPACE, key)
    if text is None:
        return None
    known = decode(CellObjects, text)
    return known if all(store.has(name) for name in (known.engine, known.evaluation, known.evidence)) else None


def is_prepared(store: Store, cell: Cell) -> bool:
    """Whether its graph is in the store."""
    return store.recall("prepared", cell.prepare.digest) is not None


def is_built(store: Store, cell: Cell) -> bool:
    """Whether its engine is in the store."""
    return store.recall("engine", cell.build.digest) is not None


def is_done(store: Store, key: str) -> bool:
    """Whether nothing of a cell would run: it is in the store whole, or was refused for a reason that lasts."""
    return recall_cell(store, key) is not None or recall_refusal(store, key) is not None
