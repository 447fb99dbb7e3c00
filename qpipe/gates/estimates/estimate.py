"""What is known of a number that a limit is set for: an estimate with one-sided bounds, and what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass

from qpipe.plugins.gate import Alpha
from qpipe.records.verdict import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number that is better when larger, with one-sided bounds: lower at `alpha.to_pass`, upper at `to_fail`."""

    n: int
    """Units (rows, or pairs) that it is computed from."""
    observed: float | None = None
    low: float | None = None
    high: float | None = None
    p_fail: float = 1.0
    """One-sided p of the null that the limit is kept; FAIL needs it small."""
    spread: float = 0.0
    """Variance of one unit's contribution: what advice in rows is computed from."""
    changed: float = 0.0
    """Share of independent 0/1 rows (groups) that flipped: where few will, the guard decides, and advice counts so."""
    per_group: float = 1.0
    """Units in a group, on average: the guard counts groups, advice rows."""
    at_least: int = 0
    """Units without which it cannot pass, whatever its interval: what advice begins with."""
    no_pass: str = ""
    """Why this cannot pass whatever its bounds say (too few flips for so few rows)."""
    granted: str = ""
    """What a PASS takes for granted of rows that are not there, where nothing bounds what they lose."""
    undecidable: str = ""
    """Why this can decide nothing (too few rows, not finite)."""
    broken: str = ""
    """Why this has failed without any interval (infinitely worse)."""


def judge(estimate: Estimate, limit: float, alpha: Alpha) -> Decision:
    """PASS above the limit, FAIL below it, else (ties too) INCONCLUSIVE."""
    if estimate.broken:
        return Decision.FAIL
    if estimate.undecidable or estimate.observed is None:
        return Decision.INCONCLUSIVE
    if estimate.low is not None and estimate.low > limit and not estimate.no_pass:
        return Decision.PASS
    if estimate.high is not None and estimate.high < limit and estimate.p_fail <= alpha.to_fail:
        return Decision.FAIL
    return Decision.INCONCLUSIVE


def with_confidence(alpha: Alpha, confidence: float) -> Alpha:
    """The error rates for another confidence than 0.95: the ledger's share of them stays the same."""
    factor = round((1 - confidence) / 0.05, 12)
    return Alpha(to_pass=alpha.to_pass * factor, to_fail=alpha.to_fail * factor)
