"""Rows of a kind that an interval was not made for: few groups, rare large losses, few flips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from qpipe.gates.comparison import rows_advice
from qpipe.gates.estimates.flips import paired_flips
from qpipe.gates.estimates.sample import sample_of
from qpipe.gates.statistics import tango
from qpipe.plugins.gate import Alpha

ROWS = 400


def alike(groups: int) -> np.ndarray:
    return np.arange(ROWS) % groups


@pytest.mark.parametrize("groups", [2, 9])
def test_shares_of_few_groups_decide_nothing(made, groups):
    # At their limit they passed in .11 to .24 of trials (2 groups) and .09 to .11 (5).
    right = (np.arange(ROWS) % 20 > 0).astype(np.float64)
    for gate, params, changes in (
        ("floor", {"at_least": 0.8}, {}),
        ("agreement", {"at_least": 0.8}, {"agreement": right}),
        ("quality", {"margin": 0.2}, {"agreement": right, "labelled": False}),
    ):
        few = made.decide(made.outcomes(right, right, groups=alike(groups), **changes), gate, **params)
        assert few.decision.value == "INCONCLUSIVE", gate
        assert f"only {groups} groups, 10 needed" in few.reason
        assert made.decide(made.outcomes(right, right, groups=alike(100), **changes), gate, **params).decision == "PASS"


def test_a_mean_of_few_groups_decides_nothing(made):
    errors = np.random.default_rng(0).random(ROWS)
    few = made.decide(made.outcomes(errors, errors, metric="mae", groups=alike(99)), "floor", at_most=2.0)
    assert (few.decision.value, "99 are too few, 100 needed" in few.reason) == ("INCONCLUSIVE", True)
    enough = made.outcomes(errors, errors, metric="mae", groups=alike(100))
    assert made.decide(enough, "floor", at_most=2.0).decision == "PASS"


@pytest.mark.parametrize(("flip_rate", "margin"), [(0.0, 0.01), (0.002, 0.01), (0.01, 0.01), (0.01, 0.02), (0.05, 0.1)])
def test_so_many_rows_pass_the_guard(flip_rate, margin):
    rows = tango.rows_for_guard(flip_rate, margin, 0.05, 0.8)
    allowed = [lost for lost in range(20) if stats.binom.cdf(lost, rows, margin) <= 0.05]
    power = stats.binom.cdf(max(allowed), rows, flip_rate / 2)
    assert power >= 0.8 or rows * flip_rate >= tango.FEW_FLIPS * 0.98
    assert rows >= tango.rows_without_loss(margin, 0.05)


def test_advice_counts_with_the_guard(made):
    # 660 rows were advised where they passed in .51 to .72 of trials: too few flips for the interval alone.
    of = made.flips(2, 2, ROWS)
    found = paired_flips(sample_of(of, 0.01, Alpha()))
    said = rows_advice(of, found, 0.01, Alpha(), noun="rows")
    assert said == "about 1,600 more rows would decide if the two are truly equal"


def overlaps(rng: np.random.Generator, rows: int, lost: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores between 0 and 1 with hardly any noise, of which a share is lost wholly."""
    reference = 0.9 + 0.05 * rng.random(rows)
    engine = np.where(rng.random(rows) < lost, 0.0, reference + rng.normal(0, 0.002, rows))
    return np.clip(engine, 0, 1), reference


def scored(made, engine: np.ndarray, reference: np.ndarray, **changes):
    metric = replace(made.metrics["cosine"], name="my:overlap", bounds=(0.0, 1.0))
    return replace(made.outcomes(engine, reference, metric="cosine", **changes), metric=metric)


@pytest.mark.parametrize(("rows", "margin"), [(100, 0.01), (300, 0.01), (500, 0.02)])
def test_a_bounded_score_at_its_margin_seldom_passes_where_losses_are_rare_and_large(made, rows, margin):
    # By t alone .33, .21 and .07 of trials passed.
    rng, runs = np.random.default_rng(rows), 100
    lost = margin / 0.925
    passed = sum(
        made.decide(scored(made, *overlaps(rng, rows, lost)), "quality", margin=margin).decision == "PASS"
        for _ in range(runs)
    )
    assert passed / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


def test_a_bounded_score_needs_rows_that_would_show_a_large_loss(made):
    rng = np.random.default_rng(0)
    few = made.decide(scored(made, *overlaps(rng, 250, 0.0)), "quality", margin=0.01)
    assert few.decision.value == "INCONCLUSIVE"
    assert "too few to show a rare large loss" in few.reason
    assert "more rows would decide" in few.advice
    assert made.decide(scored(made, *overlaps(rng, 300, 0.0)), "quality", margin=0.01).decision == "PASS"
    grouped = scored(made, *overlaps(rng, 1000, 0.0), groups=np.arange(1000) // 5)
    assert made.decide(grouped, "quality", margin=0.01).decision.value == "INCONCLUSIVE"


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.2])
def test_small_noise_costs_a_bounded_score_nothing(made, noise):
    rng = np.random.default_rng(1)
    reference = 0.5 + 0.1 * rng.random(3000)
    drawn = rng.normal(0, noise, 3000)
    engine = np.clip(reference + drawn - drawn.mean(), 0, 1)
    assert made.decide(scored(made, engine, reference), "quality", margin=0.01).decision == "PASS"
