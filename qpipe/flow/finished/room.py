"""Make room in a store: what runs could make again goes, what they found and promoted stays."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.store.spare import NOTHING_LEADS

if TYPE_CHECKING:
    from qpipe.store import Store

DAY_S = 86400
REMAKABLE = {
    "prepared": "prepared graphs",
    "statistics": "calibration statistics",
    "reference": "outputs of float models",
    "outputs": "outputs of engines",
    "copies": "rows that are copies",
    "inputs": "files brought to other machines",
    "engine": "engines that no run judged",
    "evaluation": "evaluations that no run kept",
    "explanation": "explanations that no cell kept",
    NOTHING_LEADS: "left by runs that were stopped",
}
"""Spaces of keys that a run fills again when it needs them, in the words of `qpipe clean`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Objects of one kind that went, or would go."""

    what: str
    objects: int
    size_bytes: int


def make_room(store: Store, *, older_days: float, dry: bool = False) -> tuple[Room, ...]:
    """Remove what is older and can be made again; returns it, the largest first. What a run rests on stays.

    With 0 days that is all of it, what was written under a clock that has been set back since too.

    Raises:
        ConfigError: the store is no folder here, or is not there.
        StoreError: somebody is at work in it, or the disk refused.
    """
    until_s = time.time() - older_days * DAY_S if older_days else math.inf
    found = store.sweep(REMAKABLE, until_s=until_s, dry=dry)
    rooms = [Room(what=REMAKABLE[one.space], objects=len(one.objects), size_bytes=one.size_bytes) for one in found]
    return tuple(sorted((room for room in rooms if room.objects), key=lambda room: -room.size_bytes))
