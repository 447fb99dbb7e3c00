"""What may be promoted: names that MLflow can have, and cells that have a right to an alias."""

from __future__ import annotations

import re

from qpipe.errors import ConfigError, PromotionError
from qpipe.records.engine import Engine
from qpipe.records.evidence import Evaluation, Profile
from qpipe.records.recipe import REFERENCE
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision

ALIAS_LIMIT = 200
"""The ledger's parameter holds the alias and has 250 characters."""
NAME_LIMIT = 256
"""Of a registered model. Source: MLflow's table `registered_models`; sqlite alone takes more."""
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


def check_names(model: str, alias: str) -> None:
    """Refuse names that MLflow cannot have.

    Raises:
        ConfigError: with the rule.
    """
    if _RESERVED.fullmatch(alias) or not re.fullmatch(r"[\w\-]+", alias):
        raise ConfigError(
            f"{alias!r} cannot be an alias in MLflow", hint="letters, digits, _ and -; not `latest` and not `v1`"
        )
    if len(alias) > ALIAS_LIMIT:
        raise ConfigError(
            f"an alias of {len(alias)} characters: {alias[:40]}…", hint=f"{ALIAS_LIMIT} characters at most"
        )
    check_model_name(model)


def check_model_name(model: str) -> None:
    """Refuse a name that no registered model can have.

    Raises:
        ConfigError: with the rule.
    """
    if not model.strip() or set("/:'\"") & set(model) or model in {".", ".."}:
        raise ConfigError(f"{model!r} cannot be the name of a registered model", hint="no `/`, `:` or quotes in it")
    if len(model) > NAME_LIMIT:
        raise ConfigError(
            f"a registered model's name of {len(model)} characters: {model[:40]}…",
            hint=f"{NAME_LIMIT} characters at most",
        )


def deserving(result: CellResult, force_reason: str | None) -> Engine:
    """The engine, if it may be promoted.

    Raises:
        PromotionError: it has no right to an alias, and nobody gave a reason for promoting it all the same.
    """
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


def note_of(result: CellResult, force_reason: str | None) -> str:
    """Marks that travel with a promotion."""
    marks = [mark for verdict in result.verdicts for mark in verdict.notes]
    return ", ".join([*dict.fromkeys(marks), *([f"forced: {force_reason}"] if force_reason else [])])
