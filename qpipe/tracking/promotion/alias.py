"""An alias that follows its ledger: where it stands, and how it moves."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import replace
from itertools import accumulate
from typing import Literal

from qpipe.errors import PromotionError
from qpipe.records.codec import encode
from qpipe.tracking.promotion.ledger import TAG, Book, Ledger, Move, now, whoami
from qpipe.tracking.promotion.registry import alias_version, is_deleted
from qpipe.tracking.runs import PARAM_LIMIT

REASON_LIMIT = 1000
_TRIES = 4
_PAUSE_S = 0.15


def move_alias(
    ledger: Ledger,
    alias: str,
    head: Move | None,
    *,
    action: Literal["promote", "rollback"],
    version: str,
    previous: str | None,
    engine: str,
    evidence: str,
    run_id: str,
    reason: str,
    forced: bool = False,
) -> None:
    """Enter a move behind the head that was read, then let the alias follow.

    Raises:
        PromotionError: somebody else entered a move first; says who, what and when.
        MlflowException: this user may not move aliases of the model; nothing was entered then.
    """
    move = Move(
        model=ledger.model,
        alias=alias,
        sequence=head.sequence + 1 if head else 1,
        action=action,
        version=version,
        previous=previous,
        engine=engine,
        evidence=evidence,
        by=whoami(),
        at=now(),
        reason=reason,
        forced=forced,
        run_id=run_id,
        token=uuid.uuid4().hex,
    )
    # The right to move the alias is the right to tag its model: without it the next reader would finish this move.
    ledger.tracker.client.set_registered_model_tag(ledger.model, TAG, ledger.run_id)
    ledger.write(_that_fits(move))
    follow(ledger, alias)


def _that_fits(move: Move) -> Move:
    """With as much of its reason as the ledger can hold: MLflow cuts longer parameters, which nobody could read."""
    room = PARAM_LIMIT - len(encode(replace(move, reason="")))
    widths = list(accumulate(len(json.dumps(char)) - 2 for char in move.reason))
    if len(widths) <= REASON_LIMIT and (not widths or widths[-1] <= room):
        return move
    mark = "…"
    whole = sum(width <= room - len(json.dumps(mark)) for width in widths)
    return replace(move, reason=move.reason[: min(whole, REASON_LIMIT)] + mark)


def settle(ledger: Ledger, alias: str) -> tuple[Move | None, str | None]:
    """Head of the ledger and the version that the alias is at, once the two agree.

    A head that was not followed yet (its writer died, or is about to) is followed. An alias that has left a followed
    head was moved by somebody outside the ledger.

    Raises:
        PromotionError: it was, and does not come back by itself.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)  # another promotion may be between its two writes
        before = ledger.read()
        at = alias_version(ledger.tracker, ledger.model, alias)
        head = before.head(alias)
        if ledger.read().head(alias) != head:
            continue
        if head is None or head.version == at or is_deleted(ledger.tracker, ledger.model, head.version):
            return head, at
        if not before.is_done(head):
            follow(ledger, alias)
            return settle(ledger, alias)
    raise PromotionError(
        f"{ledger.model}@{alias} is at version {at or 'none'}, moved by somebody outside the ledger,"
        f" where the last entry is: {head}",
        hint=f"`qpipe history {ledger.model}` shows the ledger, and points the alias back to it",
    )


def follow(ledger: Ledger, alias: str) -> None:
    """Point the alias to the head; again if that moved meanwhile, so that no slow writer undoes a later move."""
    head = ledger.read().head(alias)
    while head is not None:
        ledger.tracker.client.set_registered_model_alias(ledger.model, alias, head.version)
        latest = ledger.read().head(alias)
        if latest == head:
            ledger.mark_done(head)
            return
        head = latest


def check_expected(ledger: Ledger, alias: str, head: Move | None, at: str | None, expected: str | None) -> None:
    """Refuse to move an alias that is not where the caller believes it to be.

    Raises:
        PromotionError: where it is, and who moved it there.
    """
    if expected is not None and (at or "") != expected:
        found = f"version {at}" if at else "no version"
        raise PromotionError(
            f"{ledger.model}@{alias} is at {found}, not at {expected or 'none'}" + (f": {head}" if head else ""),
            hint=f"look at `qpipe history {ledger.model}`, then decide again",
        )


def check_not_overtaken(head: Move | None, engine: str, judged_at: str) -> None:
    """Refuse an engine that was judged before another one was moved to, by whoever did not know of that.

    The two times are those of two machines; one that by this machine's clock is yet to come says nothing of the order.

    Raises:
        PromotionError: who moved the alias since then, or that a clock was wrong.
    """
    if not judged_at or head is None or head.engine == engine or head.at < judged_at <= now():
        return
    judged = f"the engine {engine[:12]} was judged at {judged_at}"
    clock = f"a clock is wrong (it is {now()} here), so that nobody knows which was first: "
    since = clock if max(head.at, judged_at) > now() else ""
    raise PromotionError(
        f"{since}{judged}, and {'' if since else 'since then '}{head}",
        hint=f"if it shall take its place all the same: `qpipe promote RUN_ID --expect {head.version}`",
    )


def versions_of(book: Book, alias: str) -> list[str]:
    """Versions as promotions pushed and rollbacks popped them; the bottom is what the alias was at before qpipe."""
    moves = book.of(alias)
    stack = [moves[0].previous] if moves and moves[0].previous else []
    for move in moves:
        if move.action == "promote":
            stack.append(move.version)
            continue
        stack = stack[:-1]
        while stack and stack[-1] != move.version:  # deleted when this was rolled back
            stack.pop()
    return stack


def check_not_rolled_back(book: Book, alias: str, version: str) -> None:
    """A version that somebody took back does not return by a mere repetition of the run that promoted it.

    Raises:
        PromotionError: it was taken back: by whom, when and why.
    """
    last = next((move for move in reversed(book.of(alias)) if version in (move.version, move.previous)), None)
    if last is not None and last.action == "rollback" and last.previous == version:
        raise PromotionError(
            f"version {version} was taken back: {last}" + (f": {last.reason}" if last.reason else ""),
            hint="--force --reason TEXT promotes it again",
        )
