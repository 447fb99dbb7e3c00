"""Many hypotheses at once, and the screen that points at suspicious slices."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Which hypotheses are rejected with a family-wise error of at most `alpha`.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65–70.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = [False] * len(p_values)
    for step, index in enumerate(order):
        if not p_values[index] <= alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return tuple(rejected)


def mcnemar_mid_p(gains: int, losses: int) -> float:
    """One-sided mid-p of "more losses than gains": P(X > losses) + P(X = losses) / 2, X ~ binomial(flips, 1/2).

    Source: Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91.
    """
    from scipy.special import bdtr

    flips = gains + losses
    fewer = float(bdtr(losses - 1, flips, 0.5)) if losses else 0.0
    return 1 - (fewer + float(bdtr(losses, flips, 0.5))) / 2 if flips else 1.0
