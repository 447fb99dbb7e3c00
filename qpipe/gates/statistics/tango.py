"""Paired 0/1 outcomes: Tango's score interval for a difference of two proportions, with a guard for few flips.

Source: Tango 1998, Statistics in Medicine 17:891–908, equations (6)–(9).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FEW_FLIPS = 20
"""Below this many flips the score interval is too narrow, and PASS needs the guard too."""


def score(
    gains: NDArray[np.float64] | float,
    losses: NDArray[np.float64] | float,
    rows: float,
    difference: float,
) -> NDArray[np.float64]:
    """Tango's z for the null `P(gain) − P(loss) = difference`; positive where more was gained than the null says.

    Args:
        gains: rows that only the engine has right, any shape.
        losses: rows that only the reference has right, same shape.
        rows: all rows.
        difference: −1 … 1.
    """
    b, c = np.asarray(gains, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    linear = -b - c + (2 * rows - b + c) * difference
    constant = -c * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear**2 - 8 * rows * constant, 0.0))
    loss_rate = (root - linear) / (4 * rows)
    variance = np.maximum(rows * (2 * loss_rate + difference * (1 - difference)), 0.0)
    excess = b - c - rows * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        z = excess / np.sqrt(variance)
    return np.where(variance > 0, z, np.where(excess == 0, 0.0, np.where(excess > 0, np.inf, -np.inf)))


@lru_cache(maxsize=1024)  # a thousand small slices have a few tables between them
def bounds(
    gains: float, losses: float, rows: float, *, low_alpha: float = 0.05, high_alpha: float = 0.05
) -> tuple[float, float]:
    """One-sided lower and upper bound of `P(gain) − P(loss)`, each at its own alpha; counts may be effective ones."""
    observed = (gains - losses) / rows

    def at(z: float, left: float, right: float) -> float:
        # The score falls as the difference grows; 60 halvings reach the last bit.
        for _ in range(60):
            middle = (left + right) / 2
            left, right = (middle, right) if score(gains, losses, rows, middle) > z else (left, middle)
        return (left + right) / 2

    return at(_z(1 - low_alpha), -1.0, observed), at(_z(high_alpha), observed, 1.0)


def p_worse(gains: float, losses: float, rows: float, margin: float) -> float:
    """One-sided p of the null "at most `margin` worse": small where the engine is surely worse than that."""
    return NormalDist().cdf(float(score(gains, losses, rows, -margin)))


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def guard(losses: NDArray[np.float64] | float, rows: int, margin: float) -> NDArray[np.float64]:
    """Chance of so few losses if the loss rate were the margin: with few flips, PASS needs it at most alpha.

    Without any loss this asks for ln α / ln(1 − margin) rows.
    """
    from scipy.special import bdtr

    return np.asarray(bdtr(losses, rows, margin))


def rows_for_guard(flip_rate: float, margin: float, alpha: float, power: float) -> int:
    """Rows at which the guard passes with `power` where flips are losses as often as gains.

    No more than bring `FEW_FLIPS` flips, from which on PASS needs no guard.
    """
    from scipy.special import bdtr

    rows = rows_without_loss(margin, alpha)
    most = FEW_FLIPS / flip_rate if flip_rate > 0 else rows
    losses = np.arange(FEW_FLIPS)
    while rows < most:
        passing = int((bdtr(losses, rows, margin) <= alpha).sum()) - 1
        if float(bdtr(passing, rows, flip_rate / 2)) >= power:
            break
        rows = math.ceil(rows * 1.02)
    return rows


def rows_without_loss(margin: float, alpha: float) -> int:
    """Rows that PASS needs when not one row is lost: the least n with (1 − margin)ⁿ ≤ alpha."""
    return math.ceil(math.log(alpha) / math.log1p(-margin)) if margin < 1 else 1
