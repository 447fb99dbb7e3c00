"""Refusals that last: what a stage or a toolchain will never take is not tried again until an ingredient changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.records.codec import decode, encode

if TYPE_CHECKING:
    from qpipe.execute.children.exits import Exit
    from qpipe.store import Store

SPACE = "refused"
NOTHING = ""
"""What a key names whose refusal a later try has refuted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why the work under a measure key gave nothing, and would give nothing again."""

    reason: str
    hint: str
    log_tail: str


def remember_refusal(store: Store, key: str, ended: Exit) -> None:
    """Keep why a cell was refused, if that lasts; whatever else became of its work takes an earlier refusal back.

    A crash, a time-out, too little memory, a tool that failed and a machine that is away are no refusals.
    """
    if ended.kind == "failed" and ended.error is not None and ended.error.lasts:
        refused = Refused(reason=ended.error.message, hint=ended.error.hint, log_tail=ended.log_tail)
        store.remember(SPACE, key, encode(refused))
    elif recall_refusal(store, key) is not None:
        store.remember(SPACE, key, NOTHING)


def recall_refusal(store: Store, key: str) -> Refused | None:
    """Why the work under this key was refused before, or None."""
    text = store.recall(SPACE, key)
    return decode(Refused, text) if text else None
