"""Promotion: an engine that passed becomes a model version, and an alias moves to it, on the record."""

from __future__ import annotations

import re
import time
import uuid

from qpipe.errors import ConfigError, PromotionError
from qpipe.records.engine import Engine
from qpipe.records.evidence import Evaluation, Profile
from qpipe.records.recipe import REFERENCE
from qpipe.records.result import CellResult, Promoted
from qpipe.records.verdict import Decision
from qpipe.tracking.ledger import Book, Ledger, Move, find_ledger, now, open_ledger, whoami
from qpipe.tracking.patience import PROMOTE, READ, calling
from qpipe.tracking.registry import alias_version, register, require_version, verified_model
from qpipe.tracking.tracker import Tracker

_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)
_TRIES = 4
_PAUSE_S = 0.15
REASON_LIMIT = 1000


def promote(
    tracker: Tracker,
    result: CellResult,
    *,
    model_name: str,
    alias: str,
    model_id: str | None = None,
    expected: str | None = None,
    force_reason: str | None = None,
) -> Promoted:
    """Register the engine of a cell as a version of `model_name` and move `alias` to it; idempotent.

    `model_id` is the LoggedModel (`Logged.model_id`), searched by engine digest in the tracker's experiment if None.
    `expected` is the version that the caller believes the alias to be at (empty: none). `force_reason` lets an engine
    through that has no right to it, and is recorded.

    Raises:
        PromotionError: no right to it, or the alias was moved by somebody else: who, to what, when.
        ConfigError: a name that MLflow cannot have.
    """
    check_names(model_name, alias)
    engine = _deserving(result, force_reason)
    with calling(tracker.uri, f"promoting {result.label} to {model_name}@{alias}", PROMOTE):
        logged = verified_model(tracker, engine, model_id)
        ledger = open_ledger(tracker, model_name)
        head, at = _settle(ledger, alias)
        _check_expected(ledger, alias, head, at, expected)
        evidence = result.evidence.digest if result.evidence else ""
        version = register(tracker, model_name, logged, result, force_reason=force_reason)
        note = _note(result, force_reason)
        promoted = Promoted(model=model_name, version=version, alias=alias, engine=engine.digest, note=note)
        if head is not None and head.version == version:
            return promoted
        if not force_reason:
            _check_not_rolled_back(ledger.read(), alias, version)
        move = Move(
            model=model_name,
            alias=alias,
            sequence=head.sequence + 1 if head else 1,
            action="promote",
            version=version,
            previous=at,
            engine=engine.digest,
            evidence=evidence,
            by=whoami(),
            at=now(),
            reason=(force_reason or "")[:REASON_LIMIT],
            forced=bool(force_reason),
            run_id=str(logged.source_run_id or ""),
            token=uuid.uuid4().hex,
        )
        ledger.write(move)
        _follow(ledger, alias)
    return promoted


def rollback(tracker: Tracker, model: str, alias: str, *, reason: str = "") -> Promoted:
    """Move an alias back to where it was before its last promotion; twice goes back two.

    Raises:
        PromotionError: there is nothing to go back to, or somebody else moved the alias.
    """
    check_names(model, alias)
    with calling(tracker.uri, f"rolling back {model}@{alias}", READ):
        ledger = find_ledger(tracker, model)
        head, at = _settle(ledger, alias)
        before = _stack(ledger.read(), alias)[:-1]
        if head is None or not before:
            raise PromotionError(f"{model}@{alias} has no earlier version to go back to", hint=f"qpipe history {model}")
        version = before[-1]
        require_version(tracker, model, version)
        earlier = next((move for move in reversed(ledger.read().of(alias)) if move.version == version), None)
        move = Move(
            model=model,
            alias=alias,
            sequence=head.sequence + 1,
            action="rollback",
            version=version,
            previous=at,
            engine=earlier.engine if earlier else "",
            evidence=earlier.evidence if earlier else "",
            by=whoami(),
            at=now(),
            reason=reason[:REASON_LIMIT],
            run_id=earlier.run_id if earlier else "",
            token=uuid.uuid4().hex,
        )
        ledger.write(move)
        _follow(ledger, alias)
    return Promoted(
        model=model, version=version, alias=alias, engine=move.engine, note=f"rolled back from version {at}"
    )


def history(tracker: Tracker, model: str) -> tuple[Move, ...]:
    """All moves of a model's aliases, by alias and oldest first.

    Raises:
        ConfigError: no such model.
        PromotionError: one that qpipe never promoted.
    """
    check_model_name(model)
    with calling(tracker.uri, f"reading the history of {model}", READ):
        return find_ledger(tracker, model).read().moves


def head(tracker: Tracker, model: str, alias: str) -> Move | None:
    """Where the ledger says that an alias points, or None where nothing was ever promoted to it."""
    with calling(tracker.uri, f"reading the head of {model}@{alias}", READ):
        try:
            return find_ledger(tracker, model).read().head(alias)
        except PromotionError:
            return None


def reconcile(tracker: Tracker, model: str) -> tuple[Move, ...]:
    """Point every alias to where the ledger says; returns the moves that had not been followed.

    Raises:
        ConfigError: no such model.
        PromotionError: one that qpipe never promoted.
    """
    check_model_name(model)
    with calling(tracker.uri, f"reconciling {model}", READ):
        ledger = find_ledger(tracker, model)
        book = ledger.read()
        heads = [book.of(alias)[-1] for alias in dict.fromkeys(move.alias for move in book.moves)]
        wrong = tuple(move for move in heads if alias_version(tracker, model, move.alias) != move.version)
        for move in wrong:
            _follow(ledger, move.alias)
        return wrong


def check_names(model: str, alias: str) -> None:
    """Refuse names that MLflow cannot have.

    Raises:
        ConfigError: with the rule.
    """
    if _RESERVED.fullmatch(alias) or not re.fullmatch(r"[\w\-]+", alias):
        raise ConfigError(
            f"{alias!r} cannot be an alias in MLflow", hint="letters, digits, _ and -; not `latest` and not `v1`"
        )
    check_model_name(model)


def check_model_name(model: str) -> None:
    """Refuse a name that no registered model can have.

    Raises:
        ConfigError: with the rule.
    """
    if not model.strip() or set("/:'\"") & set(model):
        raise ConfigError(f"{model!r} cannot be the name of a registered model", hint="no `/`, `:` or quotes in it")


def _deserving(result: CellResult, force_reason: str | None) -> Engine:
    """The engine, if it may be promoted."""
    if result.engine is None:
        raise PromotionError(f"{result.label} has no engine: {result.status}: {result.reason}", hint=result.hint)
    if result.recipe == REFERENCE:
        raise PromotionError(
            f"{result.label} is the reference, which is never promoted", hint="promote a cell of another recipe"
        )
    objection = _objection(result)
    if objection and not (force_reason and force_reason.strip()):
        raise PromotionError(
            f"{result.label} has no right to an alias: {objection}",
            hint="if it must be: --force --reason TEXT, which is recorded",
        )
    return result.engine


def _objection(result: CellResult) -> str:
    if result.status != "ok":
        return f"{result.status}: {result.reason}"
    if result.decision is not Decision.PASS:
        reasons = [
            f"{one.gate}: {one.reason}" for one in result.verdicts if one.required and one.decision is not Decision.PASS
        ]
        return "; ".join([str(result.decision or "no verdict"), *reasons])
    if result.evidence is None:
        return "there is no evidence"
    kinds = {result.engine.kind} if result.engine else set()
    kinds |= {
        part.kind
        for part in (result.evidence.evaluation, result.evidence.profile)
        if isinstance(part, Evaluation | Profile)
    }
    return "its evidence is simulated" if "simulated" in kinds else ""


def _settle(ledger: Ledger, alias: str) -> tuple[Move | None, str | None]:
    """Head of the ledger and the version that the alias is at, once the two agree.

    A head that was not followed yet (its writer died, or is about to) is followed. An alias that has left a followed
    head was moved by somebody outside the ledger.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)  # another promotion may be between its two writes
        before = ledger.read()
        at = alias_version(ledger.tracker, ledger.model, alias)
        head = before.head(alias)
        if ledger.read().head(alias) != head:
            continue
        if head is None or head.version == at:
            return head, at
        if not before.is_done(head):
            _follow(ledger, alias)
            return _settle(ledger, alias)
    raise PromotionError(
        f"{ledger.model}@{alias} is at version {at or 'none'}, moved by somebody outside the ledger,"
        f" where the last entry is: {head}",
        hint=f"`qpipe history {ledger.model}` shows the ledger; reconcile points the alias back to it",
    )


def _follow(ledger: Ledger, alias: str) -> None:
    """Point the alias to the head; again if that moved meanwhile, so that no slow writer undoes a later move."""
    head = ledger.read().head(alias)
    while head is not None:
        ledger.tracker.client.set_registered_model_alias(ledger.model, alias, head.version)
        latest = ledger.read().head(alias)
        if latest == head:
            ledger.mark_done(head)
            return
        head = latest


def _check_expected(ledger: Ledger, alias: str, head: Move | None, at: str | None, expected: str | None) -> None:
    if expected is not None and (at or "") != expected:
        found = f"version {at}" if at else "no version"
        raise PromotionError(
            f"{ledger.model}@{alias} is at {found}, not at {expected or 'none'}" + (f": {head}" if head else ""),
            hint=f"look at `qpipe history {ledger.model}`, then decide again",
        )


def _stack(book: Book, alias: str) -> list[str]:
    """Versions as promotions pushed and rollbacks popped them; the bottom is what the alias was at before qpipe."""
    moves = book.of(alias)
    stack = [moves[0].previous] if moves and moves[0].previous else []
    for move in moves:
        if move.action == "promote":
            stack.append(move.version)
        elif stack:
            stack.pop()
    return stack


def _check_not_rolled_back(book: Book, alias: str, version: str) -> None:
    """A version that somebody took back does not return by a mere repetition of the run that promoted it."""
    last = next((move for move in reversed(book.of(alias)) if version in (move.version, move.previous)), None)
    if last is not None and last.action == "rollback" and last.previous == version:
        raise PromotionError(
            f"version {version} was taken back: {last}" + (f": {last.reason}" if last.reason else ""),
            hint="--force --reason TEXT promotes it again",
        )


def _note(result: CellResult, force_reason: str | None) -> str:
    marks = [mark for verdict in result.verdicts for mark in verdict.notes]
    return ", ".join([*dict.fromkeys(marks), *([f"forced: {force_reason}"] if force_reason else [])])
