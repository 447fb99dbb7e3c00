"""Large losses so rare that a sample need not show one: Student's t takes what it has not seen for nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.estimates.sample import Sample
from qpipe.gates.statistics import clusters, student
from qpipe.gates.statistics.tango import rows_without_loss
from qpipe.plugins.gate import Alpha

Floats = NDArray[np.float64]

FEW_LOSSES = 30
"""Squared changes in units of the largest possible loss: of 0/1 outcomes these are the flips."""
UNSEEN = 2.0
"""How far beyond the mean rows that are not there may lie, in units of the worst one that is. By t and Hall's
transformation losses after a lognormal law (σ = 1.5) passed at the margin in .08 to .10 of trials, with this in .05;
normal differences pass at the same rows (3 brings the .10 to .02, and costs Laplace's a quarter of the power)."""


def guard_losses(found: Estimate, sample: Sample) -> Estimate:
    """The estimate of a mean change, which cannot pass where rows that are not there could lose the margin."""
    largest = largest_loss(sample)
    if not math.isfinite(largest):
        return guard_unseen(found, sample.change, sample.groups, sample.alpha, limit=-sample.margin)
    return guard_rare(found, sample.change, sample.groups, sample.alpha, margin=sample.margin, largest=largest)


def guard_rare(
    found: Estimate,
    change: Floats,
    groups: NDArray[np.int64] | None,
    alpha: Alpha,
    *,
    margin: float,
    largest: float,
) -> Estimate:
    """The estimate, which cannot pass where a bounded score could lose the margin in rows that are not there.

    A test of the mean that holds for every distribution whose losses are bounded: under the null, E = Π (1 + λ (d + m))
    is at most 1 in the mean for 0 ≤ λ ≤ 1 / (S − m), so that it reaches 1/α with a chance of at most α (Markov). With
    the largest λ and no loss at all it asks for ln α / ln(1 − m / S) rows, as of 0/1 outcomes. Groups count by their
    means, as many as Kish's size says: that takes for granted that which of them lose does not depend on their size.

    Args:
        found: the estimate by t.
        change: what each row gained (negative: lost), [n].
        groups: of the rows, [n], or None.
        alpha: error rates of the decision.
        margin: the mean loss m that is allowed.
        largest: the most that a row can lose, S; infinite where nothing bounds it.

    Source: Waudby-Smith & Ramdas 2024 (JRSS B 86:1), section 4.1, with a fixed bet.
    """
    if not largest > margin or not math.isfinite(largest):
        return found
    worth = 1.0
    if groups is not None:
        change, worth = _by_group(change, groups)
    if float(np.square(change / largest).sum()) >= FEW_LOSSES:
        return found
    needed = math.ceil(rows_without_loss(margin / largest, alpha.to_pass) / worth)
    enough = -math.log(alpha.to_pass) / worth
    bets = 1 + (change + margin) / (largest - margin)
    won = float(np.log(bets).sum()) if (bets > 0).all() else -math.inf
    # Rows like those that are here would show it; where none is lost these are as many as without any loss.
    at_least = math.ceil(max(needed, len(change) * enough / won if won > 0 else 0) * found.n / len(change))
    if won >= enough:
        return replace(found, at_least=at_least)
    noun = "units" if groups is None else "groups"
    lack = (
        f"without any, {needed:,} are needed" if len(change) < needed else "with losses such as these more are needed"
    )
    return replace(
        found, at_least=at_least, no_pass=f"{len(change):,} {noun} are too few to show a rare large loss ({lack})"
    )


def guard_unseen(
    found: Estimate, values: Floats, groups: NDArray[np.int64] | None, alpha: Alpha, *, limit: float
) -> Estimate:
    """The estimate of a mean that nothing bounds, which cannot pass where rows that are not there could break it.

    With confidence 1 − α a share of no more than −ln α / n of all rows is worse than the worst of n. Whatever it is
    that they lose is not in the rows: twice as much as that one is taken for granted, and a PASS says how much
    would break it.

    Args:
        found: the estimate by t.
        values: of each row, better when larger, [n]; their mean is what is judged.
        groups: of the rows, [n], or None.
        alpha: error rates of the decision.
        limit: what the mean has to be above.

    Source: Hanley & Lippman-Hand 1983 (JAMA 249:1743), the rule of three.
    """
    if found.undecidable or found.observed is None or not np.isfinite(values).all():
        return found
    centred = values - values.mean()
    parts = centred if groups is None else student.group_sums(centred, groups)
    worst = -float(parts.min()) / len(values)  # what the worst of them takes off the mean
    away, fewest = found.observed - limit, -math.log(alpha.to_pass)
    if worst <= 0 or away <= 0:
        return found
    times, noun = away / (fewest * worst), "rows" if groups is None else "groups"
    share = f"1 in {math.floor(len(parts) / fewest):,}, which {len(parts):,} {noun} need not show"
    said = f"{times:.1f}" if times < 10 else f"{times:,.0f}"
    found = replace(found, at_least=math.ceil(found.n * UNSEEN / times))
    if times > UNSEEN:
        return replace(found, granted=f"rare {noun} ({share}) are less than {said} times as bad as the worst one here")
    if found.low is None or found.low <= limit:
        return found
    why = f"rare {noun} ({share}) break it if they are {said} times as bad as the worst one here"
    return replace(found, no_pass=why)


def largest_loss(sample: Sample) -> float:
    """How much the engine can lose in one row at most: from the best row of the float model to the metric's worst."""
    low, high = sample.metric.bounds
    best = sample.reference[:, 0].max() - low if sample.metric.higher_is_better else high - sample.reference[:, 0].min()
    return float(best)


def _by_group(change: Floats, groups: NDArray[np.int64]) -> tuple[Floats, float]:
    """The mean change in each group, and what a group of theirs is worth: less than one where sizes differ.

    A group may lose in all of its rows. Were the largest taken for the size of all, one of 25 rows among a thousand
    pairs would ask for twelve times the rows.
    """
    means = student.group_sums(change, groups) / student.group_sums(np.ones(len(change)), groups)
    return means, clusters.kish(groups) / len(means)
