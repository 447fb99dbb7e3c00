"""What holds for every outcome: a wider margin and fewer losses never make a verdict worse."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from qpipe.gates.statistics import tango
from qpipe.records.verdict import Decision

RANK = {Decision.FAIL: 0, Decision.INCONCLUSIVE: 1, Decision.PASS: 2}
ROWS = st.integers(1, 3000)
MARGINS = st.floats(0.001, 0.9)


@st.composite
def tables(draw) -> tuple[int, int, int]:
    rows = draw(ROWS)
    gains = draw(st.integers(0, rows))
    return gains, draw(st.integers(0, rows - gains)), rows


@settings(max_examples=60, deadline=None)
@given(table=tables(), margins=st.tuples(MARGINS, MARGINS))
def test_a_wider_margin_is_never_worse(made, table, margins):
    narrow, wide = sorted(margins)
    of = made.flips(*table)
    assert (
        RANK[made.decide(of, "quality", margin=narrow).decision]
        <= RANK[made.decide(of, "quality", margin=wide).decision]
    )


@settings(max_examples=60, deadline=None)
@given(table=tables(), margin=MARGINS)
def test_one_more_loss_never_turns_a_fail_into_a_pass(made, table, margin):
    gains, losses, rows = table
    before = made.decide(made.flips(gains, losses, rows), "quality", margin=margin).decision
    after = made.decide(made.flips(gains, losses + 1, rows + 1), "quality", margin=margin).decision
    assert not (before is Decision.FAIL and after is Decision.PASS)


@settings(max_examples=60, deadline=None)
@given(table=tables(), margin=MARGINS)
def test_pass_and_fail_exclude_each_other_and_bounds_enclose_the_estimate(made, table, margin):
    found = made.decide(made.flips(*table), "quality", margin=margin)
    assert found.low <= found.observed <= found.high
    assert not (found.low > -margin and found.high < -margin)
    if found.decision is Decision.PASS:
        assert found.low > -margin
    if found.decision is Decision.FAIL:
        assert found.high < -margin


@settings(max_examples=60, deadline=None)
@given(table=tables(), margin=MARGINS)
def test_a_bound_and_its_test_agree(table, margin):
    gains, losses, rows = table
    low, high = tango.bounds(gains, losses, rows)
    z = float(tango.score(gains, losses, rows, -margin))
    edge = norm.ppf(0.95)
    if abs(abs(z) - edge) > 1e-6:
        assert (z > edge) == (low > -margin)
        assert (z < -edge) == (high < -margin)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-0.3, 0.3), margins=st.tuples(MARGINS, MARGINS))
def test_a_wider_margin_is_never_worse_for_scores(made, seed, shift, margins):
    rng = np.random.default_rng(seed)
    reference = np.abs(rng.normal(size=150))
    of = made.outcomes(np.abs(reference + shift + 0.1 * rng.normal(size=150)), reference, metric="mae")
    narrow, wide = sorted(margins)
    assert (
        RANK[made.decide(of, "quality", margin=narrow).decision]
        <= RANK[made.decide(of, "quality", margin=wide).decision]
    )


@settings(max_examples=30, deadline=None)
@given(at_least=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)), hits=st.integers(0, 400))
def test_a_lower_floor_is_never_worse(made, at_least, hits):
    units = (np.arange(400) < hits).astype(float)
    low, high = sorted(at_least)
    found = [made.decide(made.outcomes(units, units), "floor", at_least=value).decision for value in (high, low)]
    assert RANK[found[0]] <= RANK[found[1]]
