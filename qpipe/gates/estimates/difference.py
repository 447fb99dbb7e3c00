"""How much better the engine is than the float model as given, whatever the kind of metric."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.estimates.flips import flip_rate, paired_flips
from qpipe.gates.estimates.means import paired_corpus, paired_scores
from qpipe.gates.estimates.sample import Sample, real_groups, sample_of
from qpipe.plugins.gate import Alpha, Outcomes


def difference(outcomes: Outcomes, margin: float, alpha: Alpha, chosen: NDArray[np.bool_] | None = None) -> Estimate:
    """Engine minus reference, better when larger, over all units or the `chosen` ones [n].

    Without labels: minus the flip rate, which bounds the drop.
    """
    units = len(outcomes.agreement) if chosen is None else int(chosen.sum())
    if units == 0:
        return Estimate(n=0, undecidable="there are no rows")
    if not outcomes.labelled:
        agreement = outcomes.agreement if chosen is None else outcomes.agreement[chosen]
        return flip_rate(outcomes.metric, agreement, real_groups(outcomes.groups, chosen), alpha)
    sample = sample_of(outcomes, margin, alpha, chosen)
    spoilt = _spoilt(sample)
    if spoilt is not None:
        return spoilt
    match sample.metric.kind:
        case "binary":
            return paired_flips(sample)
        case "score":
            return paired_scores(sample)
        case "corpus":
            return paired_corpus(sample)


def _spoilt(sample: Sample) -> Estimate | None:
    """Units that are not finite: never a PASS. Infinitely worse is a FAIL, undefined is INCONCLUSIVE."""
    name, rows = sample.metric.name, len(sample.engine)
    theirs = int((~np.isfinite(sample.reference)).any(axis=1).sum())
    if theirs:
        return Estimate(n=rows, undecidable=f"{name} of the float model is not finite for {theirs:,} of {rows:,}")
    ours = int((~np.isfinite(sample.engine)).any(axis=1).sum())
    if not ours:
        return None
    if np.isnan(sample.engine).any():
        return Estimate(n=rows, undecidable=f"{name} is undefined: outputs are not finite for {ours:,} of {rows:,}")
    return Estimate(n=rows, broken=f"the engine's outputs are not finite for {ours:,} of {rows:,}")
