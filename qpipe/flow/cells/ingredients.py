"""What each cell was made of the last time, so that a miss in the cache can be explained and its cost guessed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.records.cell import Cell, Ingredient
from qpipe.records.codec import decode, encode

if TYPE_CHECKING:
    from qpipe.store import Store

SPACE = "slots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The last finished work for one model name × recipe name × target name."""

    ingredients: tuple[Ingredient, ...]
    """Of the measure key: it covers the other two."""
    seconds: float
    """Wall time of prepare, build and evaluate."""
    engine_bytes: int


def recall_slot(store: Store, cell: Cell) -> Slot | None:
    """The last finished work under the cell's names, whatever its keys were."""
    text = store.recall(SPACE, _name(cell))
    return None if text is None else decode(Slot, text)


def remember_slot(store: Store, cell: Cell, *, seconds: float, engine_bytes: int) -> None:
    """Keep what a finished cell was made of."""
    slot = Slot(ingredients=cell.measure.ingredients, seconds=seconds, engine_bytes=engine_bytes)
    store.remember(SPACE, _name(cell), encode(slot))


def _name(cell: Cell) -> str:
    return hashlib.sha256(cell.label.encode()).hexdigest()
