"""What a metric of a whole sample rests on: few rows, or few of one class, hide losses that more would show."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.estimates.sample import changed_groups
from qpipe.gates.statistics.tango import rows_without_loss
from qpipe.plugins.metric import Metric

Floats = NDArray[np.float64]
Groups = NDArray[np.int64] | None

FEWEST_OF_CLASS = 100
"""AUC is a mean over positives as much as over rows: with 10 of them a drop of .05 by rare large losses passed in .35
of trials, and of .01 in .65; with 100 in .07 and .10 (nominal .05)."""


def rare_class(metric: Metric, units: Floats, groups: Groups) -> str:
    """Which class has too few units (groups) for a bootstrap within classes; empty where none has, or none is made."""
    if metric.strata is None:
        return ""
    name, count = _rarest(units[:, metric.strata], groups)
    return "" if count >= FEWEST_OF_CLASS else f"only {count} of class {name}, {FEWEST_OF_CLASS} needed"


def hidden_loss(metric: Metric, units: Floats, groups: Groups, margin: float, alpha: float) -> str:
    """Which class could lose the whole margin alone without one loss among its units, where all weigh alike; or empty.

    Of K classes one carries 1/K of the metric: it loses `margin` where K · margin of its rows are lost.
    """
    if metric.equal_classes is None:
        return ""
    classes = units[:, metric.equal_classes]
    name, count = _rarest(classes, groups)
    needed = rows_without_loss(len(np.unique(classes)) * margin, alpha) if margin > 0 else 0
    return (
        "" if count >= needed else f"class {name} is too rare to show its own loss: it has {count}, {needed:,} needed"
    )


def unseen_loss(metric: Metric, values: Floats, groups: Groups, margin: float, alpha: float) -> str:
    """That too few units (groups) are here to show rows that lose all, where so few lose the whole margin; or empty.

    A bootstrap knows no loss that is not in the sample; scores that all differ by a hair look like many differences.
    """
    span = metric.bounds[1] - metric.bounds[0]
    if margin <= 0 or not math.isfinite(span):
        return ""
    count, needed = changed_groups(np.ones(len(values), np.bool_), groups)[0], rows_without_loss(margin / span, alpha)
    return "" if count >= needed else f"{count:,} are too few to show a rare loss, {needed:,} needed"


def _rarest(classes: Floats, groups: Groups) -> tuple[int, int]:
    counts = {int(one): changed_groups(classes == one, groups)[0] for one in np.unique(classes)}
    return min(counts.items(), key=lambda found: found[1])
