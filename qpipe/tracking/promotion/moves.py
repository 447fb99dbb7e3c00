"""Promotion: an engine that passed becomes a model version, and an alias moves to it, on the record."""

from __future__ import annotations

from itertools import takewhile

from qpipe.errors import PromotionError
from qpipe.records.result import CellResult, Promoted
from qpipe.tracking.patience import PROMOTE, READ, calling
from qpipe.tracking.promotion.alias import (
    check_expected,
    check_not_overtaken,
    check_not_rolled_back,
    follow,
    move_alias,
    settle,
    versions_of,
)
from qpipe.tracking.promotion.ledger import Ledger, Move, find_ledger, open_ledger
from qpipe.tracking.promotion.registry import alias_version, is_deleted, register, verified_model
from qpipe.tracking.promotion.rights import check_model_name, check_names, deserving, note_of
from qpipe.tracking.tracker import Tracker


def promote(
    tracker: Tracker,
    result: CellResult,
    *,
    model_name: str,
    alias: str,
    model_id: str | None = None,
    expected: str | None = None,
    judged_at: str = "",
    force_reason: str | None = None,
) -> Promoted:
    """Register the engine of a cell as a version of `model_name` and move `alias` to it; idempotent.

    `model_id` is the LoggedModel (`Logged.model_id`), searched by engine digest in the tracker's experiment if None.
    `expected` is the version that the caller believes the alias to be at (empty: none). `judged_at`, UTC as the
    ledger has it, refuses where another engine was promoted since then. `force_reason` lets an engine through that has
    no right to it, and is recorded.

    Raises:
        PromotionError: no right to it, or the alias was moved by somebody else: who, to what, when.
        ConfigError: a name that MLflow cannot have.
    """
    check_names(model_name, alias)
    engine = deserving(result, force_reason)
    with calling(tracker.uri, f"promoting {result.label} to {model_name}@{alias}", PROMOTE):
        logged = verified_model(tracker, engine, model_id)
        ledger = open_ledger(tracker, model_name)
        head, at = settle(ledger, alias)
        check_expected(ledger, alias, head, at, expected)
        check_not_overtaken(head, engine.digest, judged_at)
        version = register(tracker, model_name, logged, result, force_reason=force_reason)
        note = note_of(result, force_reason)
        promoted = Promoted(model=model_name, version=version, alias=alias, engine=engine.digest, note=note)
        if head is not None and head.version == version:
            return promoted
        if not force_reason:
            check_not_rolled_back(ledger.read(), alias, version)
        move_alias(
            ledger,
            alias,
            head,
            action="promote",
            version=version,
            previous=at,
            engine=engine.digest,
            evidence=result.evidence.digest if result.evidence else "",
            run_id=str(logged.source_run_id or ""),
            reason=force_reason or "",
            forced=bool(force_reason),
        )
    return promoted


def rollback(tracker: Tracker, model: str, alias: str, *, reason: str = "") -> Promoted:
    """Move an alias back to where it was before its last promotion; twice goes back two.

    Raises:
        PromotionError: there is nothing to go back to, or somebody else moved the alias.
    """
    check_names(model, alias)
    with calling(tracker.uri, f"rolling back {model}@{alias}", READ):
        ledger = find_ledger(tracker, model)
        head, at = settle(ledger, alias)
        before = versions_of(ledger.read(), alias)[:-1]
        deleted = list(takewhile(lambda version: is_deleted(tracker, model, version), reversed(before)))
        gone = f"; deleted: version {', '.join(deleted)}" if deleted else ""
        if head is None or len(deleted) == len(before):
            raise PromotionError(
                f"{model}@{alias} has no earlier version to go back to{gone}",
                hint="promote a run, with --force --reason TEXT where its version was taken back: qpipe promote RUN_ID",
            )
        version = before[-1 - len(deleted)]
        earlier = next((move for move in reversed(ledger.read().of(alias)) if move.version == version), None)
        engine = earlier.engine if earlier else ""
        move_alias(
            ledger,
            alias,
            head,
            action="rollback",
            version=version,
            previous=at,
            engine=engine,
            evidence=earlier.evidence if earlier else "",
            run_id=earlier.run_id if earlier else "",
            reason=reason,
        )
    note = f"rolled back from version {at or f'{head.version}, which was deleted'}{gone}"
    return Promoted(model=model, version=version, alias=alias, engine=engine, note=note)


def history(tracker: Tracker, model: str) -> tuple[Move, ...]:
    """All moves of a model's aliases, by alias and oldest first.

    Raises:
        ConfigError: no such model.
        PromotionError: one that qpipe never promoted.
    """
    check_model_name(model)
    with calling(tracker.uri, f"reading the history of {model}", READ):
        return find_ledger(tracker, model).read().moves


def reconcile(tracker: Tracker, model: str) -> tuple[Move, ...]:
    """Point every alias to where the ledger says; returns the moves that had not been followed, and can be.

    Raises:
        ConfigError: no such model.
        PromotionError: one that qpipe never promoted.
    """
    check_model_name(model)
    with calling(tracker.uri, f"reconciling {model}", READ):
        ledger = find_ledger(tracker, model)
        there = _astray(ledger, deleted=False)
        for move in there:
            follow(ledger, move.alias)
        return there


def orphaned(tracker: Tracker, model: str) -> tuple[Move, ...]:
    """The last moves of those aliases whose version was deleted: a rollback or a promotion mends them.

    Raises:
        ConfigError: no such model.
        PromotionError: one that qpipe never promoted.
    """
    check_model_name(model)
    with calling(tracker.uri, f"reading the history of {model}", READ):
        return _astray(find_ledger(tracker, model), deleted=True)


def _astray(ledger: Ledger, *, deleted: bool) -> tuple[Move, ...]:
    """The last moves of aliases that are not where the ledger says, to versions that were deleted or are there."""
    book = ledger.read()
    heads = [book.of(alias)[-1] for alias in dict.fromkeys(move.alias for move in book.moves)]
    wrong = (move for move in heads if alias_version(ledger.tracker, ledger.model, move.alias) != move.version)
    return tuple(move for move in wrong if is_deleted(ledger.tracker, ledger.model, move.version) is deleted)
