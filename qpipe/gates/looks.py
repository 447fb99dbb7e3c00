"""The ledger of looks: every new look at a family of engines spends a part of the error rate.

Judging again and again until something passes would raise the chance of a false PASS from .05 to .126 (5 looks) or
.169 (10). A family is float model × target × gate set × toolchain. Its first look has alpha .04, split over the
finalists that were declared beforehand; look j ≥ 2 has .01 · 6 / (π² j²): all looks together stay below .05.

Source: alpha spending after Bonferroni with the weights of Σ 1/j² = π²/6 (Euler).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from qpipe.plugins.gate import Alpha
from qpipe.records.codec import decode, digest, encode
from qpipe.records.verdict import Decision, GateSpec

SPACE = "looks"
"""Space of keys in the store."""
FIRST = 0.04
LATER = 0.01
MANY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What looks are counted for; a new float model or toolchain is a new family."""

    model_digest: str
    target: str
    gate_set: str
    """Digest of the gate rows, as their file has them."""
    toolchain: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """SHA-256 that names the family."""
        return digest(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look: the evidence of at most `finalists` candidates, all of one run."""

    number: int
    """From 1."""
    run: str
    """The run that looked."""
    finalists: int
    """Declared before the look: so many candidates share its alpha."""
    evidence: tuple[str, ...]
    """Digests of the evidence that was judged in this look."""
    declared: int = 0
    """How many cells the run declared for this family: finalists, and independent demands; 0 is `finalists`."""

    @property
    def full(self) -> bool:
        """Whether all that was declared has been judged."""
        return len(self.evidence) >= max(self.declared, self.finalists)


class Keys(Protocol):
    """The part of the store that the ledger needs."""

    def recall(self, space: str, key: str) -> str | None:
        """What a key names, or None."""
        ...

    def remember(self, space: str, key: str, text: str) -> None:
        """Let a key name a text."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold a name against all other processes."""
        ...


def take_look(
    past: tuple[Look, ...], *, evidence: str, run: str, finalists: int = 1, declared: int = 0, fresh: bool = False
) -> tuple[Look, tuple[Look, ...]]:
    """The look that judges this evidence, and the ledger after it.

    Evidence that was judged before is free, and keeps the alpha of its look; evidence that was measured again on
    purpose (`fresh`) is a new look, else one could retry until it passes. The candidates of one run share a look as
    long as there are no more of them than were declared.

    Args:
        past: looks so far, oldest first.
        evidence: digest of the evidence.
        run: id of the run that asks.
        finalists: candidates for one name that were declared beforehand, at least 1: they share the alpha.
        declared: all cells that this run declared for the family; those of other names share the look, not the alpha.
        fresh: whether the user had this key measured again.
    """
    for look in past:
        if evidence in look.evidence and (look.run == run or not fresh):
            return look, past
    last = past[-1] if past else None
    if last is not None and last.run == run and not last.full:
        joined = replace(last, evidence=(*last.evidence, evidence))
        return joined, (*past[:-1], joined)
    look = Look(number=len(past) + 1, run=run, finalists=max(finalists, 1), evidence=(evidence,), declared=declared)
    return look, (*past, look)


def alpha_of(look: Look) -> Alpha:
    """Error rates of a decision in this look; FAIL keeps its own."""
    whole = FIRST if look.number == 1 else LATER * 6 / (math.pi * look.number) ** 2
    return Alpha(to_pass=whole / look.finalists)


def look_advice(number: int, alpha: float, decision: Decision) -> str:
    """What a later look asks of a PASS, where it may have cost one or the gate rows are worn out; else nothing."""
    if number == 1 or (decision is not Decision.INCONCLUSIVE and number <= MANY):
        return ""
    asked = f"PASS takes an error rate of {alpha:.2g}, at the first one it was {FIRST:g}"
    return f"this is look {number} at these gate rows: {asked}; fresh gate rows restore it"


def record_look(
    keys: Keys,
    family: Family,
    *,
    evidence: str,
    run: str,
    finalists: int = 1,
    declared: int = 0,
    fresh: bool = False,
) -> Look:
    """Take a look and keep it in the store, safe against other processes."""
    with keys.lock(f"{SPACE}-{family.digest}"):
        book = _read(keys, family)
        look, after = take_look(
            book.looks, evidence=evidence, run=run, finalists=finalists, declared=declared, fresh=fresh
        )
        if after != book.looks:
            keys.remember(SPACE, family.digest, encode(replace(book, looks=after)))
    return look


def first_gates(keys: Keys, family: Family, gates: Iterable[GateSpec]) -> dict[str, GateSpec]:
    """The gates as they were when each was first asked at this family; those that are new are kept from now on."""
    with keys.lock(f"{SPACE}-{family.digest}"):
        book = _read(keys, family)
        known = {gate.name: gate for gate in book.asked}
        new = tuple(gate for gate in gates if gate.name not in known)
        if new:
            keys.remember(SPACE, family.digest, encode(replace(book, asked=(*book.asked, *new))))
    return known | {gate.name: gate for gate in new}


def past_looks(keys: Keys, family: Family) -> tuple[Look, ...]:
    """The looks at a family so far, oldest first."""
    return _read(keys, family).looks


def _read(keys: Keys, family: Family) -> _Ledger:
    text = keys.recall(SPACE, family.digest)
    return _Ledger(family=family, looks=()) if text is None else decode(_Ledger, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ledger:
    family: Family
    looks: tuple[Look, ...]
    asked: tuple[GateSpec, ...] = ()
    """Each gate as it was at the first look that it judged."""
