"""Paired 0/1 outcomes with few flips: an exact test, whatever the flip rate is.

The distribution of Tango's score at the margin depends on the flip rate, which nobody knows: the p-value is the largest
over all flip rates that the sample leaves possible, plus the chance that the true one is not among them.

Sources: Hsueh, Liu & Chen 2001 (Biometrics 57:478), for this score over all rates; Berger & Boos 1994 (Journal of the
American Statistical Association 89:1012), for a confidence set of them; Röhmel & Mansmann 1999 (Biometrical Journal
41:149), for the margin as the worst case of what lies on its other side.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.statistics import binomial, tango

Floats = NDArray[np.float64]

MOST_FLIPS = 1000
"""From so many on Tango's own p is off by less than a hundredth of it."""
OUTSIDE = 1e-6
"""Chance that the flip rate lies outside its confidence set: small beside the share of one of 1,000 slices."""
RATES, CLOSER = 30, 12
"""Rates tried: they lie a third of the standard deviation of a flip count apart, and closer around the worst."""
TAIL = 6.0
"""Standard deviations of the gains that are summed over, and as many gains: outside lies less than 1e−8."""


@lru_cache(maxsize=1024)  # a thousand small slices have a few tables between them
def p_worse(gains: int, losses: int, rows: int, margin: float) -> float:
    """One-sided exact p of the null "at most `margin` worse": small where the engine is surely worse than that."""
    low, high = flip_rates(gains + losses, rows, margin)
    observed = float(tango.score(gains, losses, rows, -margin))
    if observed >= 0:
        return 1.0
    roots = np.linspace(np.sqrt(low), np.sqrt(high), RATES)
    chances = chances_of_so_bad(roots**2, rows, margin, observed)
    at = int(np.argmax(chances))
    near = np.linspace(roots[max(at - 1, 0)], roots[min(at + 1, RATES - 1)], CLOSER)
    worst = max(chances[at], *chances_of_so_bad(near**2, rows, margin, observed))
    return min(1.0, float(worst) + OUTSIDE)


def chances_of_so_bad(rates: Floats, rows: int, margin: float, observed: float) -> Floats:
    """The chance of a score as low as the observed one where the engine is `margin` worse, for each flip rate."""
    rates = np.maximum(rates, margin)
    gains = likely_gains(rows, rates, margin)
    losses = fewest_losses(np.arange(int(gains.max()) + 1), rows, margin, observed)
    return sum_of_tables(gains, losses[gains], rows, rates, margin)


def likely_gains(rows: int, rates: Floats, margin: float) -> NDArray[np.int64]:
    """Numbers of gains that are summed over, one row for each flip rate, [rates, k]; those above `rows` are none."""
    spread = np.sqrt(rows * (rates - margin) / 2)
    first = np.maximum(spread**2 - TAIL * spread, 0).astype(np.int64)
    window = np.arange(int(2 * TAIL * spread.max() + TAIL) + 1)
    return np.asarray(first[:, None] + window)


def flip_rates(flips: int, rows: int, margin: float) -> tuple[float, float]:
    """The flip rates, at least `margin`, that a sample with so many flips leaves possible (Clopper–Pearson)."""
    low, high = (bound(flips, rows, OUTSIDE / 2) for bound in (binomial.lower, binomial.upper))
    return min(max(low, margin), 1.0), min(max(high, margin), 1.0)


def fewest_losses(gains: NDArray[np.int64], rows: int, margin: float, observed: float) -> NDArray[np.int64]:
    """For each number of gains the fewest losses whose score is as low as the observed one; rows + 1 where none is.

    The score falls with each loss, so that halving finds it.
    """
    left, right = np.zeros(len(gains), np.int64), np.maximum(rows - gains + 1, 0)
    while (left < right).any():
        middle = (left + right) // 2
        # The same table may come out an ulp apart.
        bad = tango.score(gains.astype(np.float64), middle.astype(np.float64), rows, -margin) <= observed + 1e-9
        right = np.where(bad, middle, right)
        left = np.where(bad | (left >= right), left, middle + 1)
    return np.where(left > rows - gains, rows + 1, left)


def sum_of_tables(
    gains: NDArray[np.int64], losses: NDArray[np.int64], rows: int, rates: Floats, margin: float
) -> Floats:
    """The chance of at least so many losses beside so many gains [rates, k], summed over gains, for each flip rate.

    Gains are binomial, and so are losses among the rows that are no gain.
    """
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    gain, loss = (rates[:, None] - margin) / 2, (rates[:, None] + margin) / 2
    left = np.maximum(rows - gains, 0)
    ways = gammaln(rows + 1) - gammaln(gains + 1) - gammaln(left + 1)
    of_gains = np.where(gains <= rows, np.exp(ways + xlogy(gains, gain) + xlog1py(left, -gain)), 0.0)
    enough = bdtrc(np.minimum(losses - 1.0, left), left, np.minimum(loss / (1 - gain), 1.0))
    enough = np.where(losses > left, 0.0, enough)
    return np.asarray((of_gains * enough).sum(axis=1))
