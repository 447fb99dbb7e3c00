"""`quality` on every kind of metric: three values, numbers, advice, and what can never pass."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from qpipe.errors import ConfigError
from qpipe.gates.estimates.means import weighted
from qpipe.plugins.gate import Alpha
from qpipe.records.evidence import NotMeasured
from qpipe.records.verdict import Decision

PASS, FAIL, OPEN = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE


@pytest.mark.parametrize(
    ("table", "decision"),
    [((40, 50, 4846), PASS), ((20, 40, 2000), OPEN), ((2, 40, 400), FAIL), ((0, 0, 299), PASS), ((0, 0, 298), OPEN)],
)
def test_accuracy_has_three_values(made, table, decision):
    assert made.decide(made.flips(*table), "quality", margin=0.01).decision is decision


def test_the_verdict_carries_every_number(made):
    found = made.decide(made.flips(40, 50, 4846), "quality", margin=0.01, metric="accuracy", confidence=0.95)
    assert found.observed == pytest.approx(-10 / 4846)
    assert found.low == pytest.approx(-0.005357, abs=5e-7)
    # The upper bound has its own error rate of .025.
    assert found.high == pytest.approx(0.001811, abs=5e-6)
    assert (found.limit, found.n, found.alpha, found.kind) == (-0.01, 4846, 0.05, "measured")
    assert found.reason == "accuracy: the interval -0.005357 … +0.00181 keeps the limit -0.01"
    assert found.advice == ""


def test_the_alpha_of_a_look_is_the_one_that_decides(made):
    assert made.decide(made.flips(0, 0, 299), "quality", Alpha(to_pass=0.04), margin=0.01).decision is OPEN
    found = made.decide(made.flips(0, 0, 321), "quality", Alpha(to_pass=0.04), margin=0.01)
    assert (found.decision, found.alpha) == (PASS, 0.04)


def test_more_confidence_makes_wider_bounds(made):
    usual = made.decide(made.flips(40, 50, 4846), "quality", margin=0.01)
    sure = made.decide(made.flips(40, 50, 4846), "quality", margin=0.01, confidence=0.99)
    assert sure.low < usual.low
    assert sure.high > usual.high
    assert sure.alpha == pytest.approx(0.01)


def test_advice_names_rows_for_both_cases(made):
    found = made.decide(made.flips(20, 34, 2000), "quality", margin=0.01)
    assert found.decision is OPEN
    # ψ = 54/2000 at its upper 80 % bound is .03065; z = 1.645 + .842; n* = 6.18 (ψ − d²) / (m + d)².
    assert "would decide if the two are truly equal; if the observed drop is real, about" in found.advice
    more = [int(number.replace(",", "")) for number in re.findall(r"about ([\d,]+) more rows", found.advice)]
    assert len(more) == 1
    assert more[0] == pytest.approx(6.1826 * (0.03065 - 0.007**2) / 0.003**2 - 2000, rel=0.02)


def test_advice_on_two_that_are_equal_counts_the_rows_missing(made):
    """ψ = 27/1000 at its upper 80 % bound, .0323; 6.18 ψ / m² = 1,997 rows, of which 1,000 are here."""
    found = made.decide(made.flips(10, 17, 1000), "quality", margin=0.01)
    assert found.advice.startswith("about 1,000 more rows would decide if the two are truly equal; if the observed")


def test_advice_about_a_drop_at_the_margin_says_so(made):
    found = made.decide(made.flips(20, 40, 2000), "quality", margin=0.01)
    assert found.advice.endswith("if the observed drop is real, this is not decidable at a practical size")


def test_advice_without_a_flip_asks_for_the_rows_that_zero_flips_need(made):
    """ψ may be 1 − .2^(1/298) = .00539: with it 6.18 ψ / m² = 334 rows decide, somewhat more than zero flips need."""
    found = made.decide(made.flips(0, 0, 298), "quality", margin=0.01)
    assert found.reason.endswith(
        "298 rows are too few for so few flips (none was lost; without any loss 299 are needed)"
    )
    assert found.advice == "about 36 more rows would decide if the two are truly equal"


def test_groups_of_copies_are_not_rows(made):
    rng = np.random.default_rng(0)
    change = np.repeat(rng.choice([-1.0, 0.0, 1.0], 400, p=[0.04, 0.93, 0.03]), 5)
    engine, reference = (change > 0) + (change == 0) * 1.0, (change < 0) + (change == 0) * 1.0
    alone = made.decide(made.outcomes(engine, reference), "quality", margin=0.02)
    grouped = made.decide(made.outcomes(engine, reference, groups=np.repeat(np.arange(400), 5)), "quality", margin=0.02)
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(5), rel=0.1)


def test_groups_without_flips_count_as_groups(made):
    groups = np.repeat(np.arange(298), 5)
    assert made.decide(made.flips(0, 0, 1490, groups=groups), "quality", margin=0.01).decision is OPEN
    groups = np.repeat(np.arange(299), 5)
    assert made.decide(made.flips(0, 0, 1495, groups=groups), "quality", margin=0.01).decision is PASS


def test_groups_of_one_row_are_rows(made):
    alone = made.decide(made.flips(20, 30, 2000), "quality", margin=0.02)
    assert made.decide(made.flips(20, 30, 2000, groups=np.arange(2000)), "quality", margin=0.02) == alone


def mae(made, shift: float, rows: int = 400, noise: float = 0.05):
    rng = np.random.default_rng(1)
    reference = np.abs(rng.normal(size=rows))
    return made.outcomes(reference + shift + noise * rng.normal(size=rows), reference, metric="mae")


@pytest.mark.parametrize(("shift", "decision"), [(0.0, PASS), (0.05, OPEN), (0.2, FAIL), (-0.2, PASS)])
def test_errors_are_better_when_smaller(made, shift, decision):
    found = made.decide(mae(made, shift), "quality", margin=0.05)
    assert found.decision is decision
    assert found.limit == 0.05
    assert found.low < found.observed < found.high
    assert found.observed == pytest.approx(shift, abs=0.01)


def test_scores_need_a_hundred_rows(made):
    found = made.decide(mae(made, 0.0, rows=99), "quality", margin=0.5)
    assert (found.decision, found.low) == (OPEN, None)
    assert "99 are too few, 100 needed" in found.reason


def test_unbounded_scores_need_twenty_differences(made):
    reference = np.abs(np.random.default_rng(2).normal(size=5000))
    engine = reference.copy()
    engine[:19] += 1e-6
    found = made.decide(made.outcomes(engine, reference, metric="mae"), "quality", margin=0.5)
    assert found.decision is OPEN
    assert "only 19 of 5,000 differ from the float model, 20 needed" in found.reason


def test_bounded_scores_may_pass_by_the_share_that_changed(made):
    """Cosine spans 2: the bound of no change in n rows is −2 (1 − .05^(1/n))."""
    same = np.full(1000, 0.5)
    found = made.decide(made.outcomes(same, same, metric="cosine"), "quality", margin=0.01)
    assert found.decision is PASS
    assert found.low == pytest.approx(-2 * (1 - 0.05 ** (1 / 1000)))
    assert made.decide(made.outcomes(same[:500], same[:500], metric="cosine"), "quality", margin=0.01).decision is OPEN


def pairs(made, noise: float, count: int = 600):
    rng = np.random.default_rng(3)
    score = rng.normal(size=count)
    reference = score + 0.5 * rng.normal(size=count)
    engine = reference + noise * rng.normal(size=count)
    return made.outcomes(np.stack([engine, score], 1), np.stack([reference, score], 1), metric="spearman")


@pytest.mark.parametrize(("noise", "decision"), [(0.03, PASS), (0.22, OPEN), (0.8, FAIL)])
def test_spearman_has_three_values(made, noise, decision):
    of = replace(pairs(made, noise), evidence=made.evidence(evaluation=made.evaluation(1200, units=600)))
    found = made.decide(of, "quality", margin=0.02)
    assert found.decision is decision
    assert found.advice.endswith("more pairs" if decision is OPEN else "")


def test_spearman_bounds_as_a_plain_bootstrap(made):
    """Against a bootstrap written out with scipy's own Spearman."""
    from scipy.stats import spearmanr

    of = pairs(made, 0.2, count=200)
    found = made.decide(of, "quality", margin=0.02)
    rng = np.random.default_rng(9)
    differences = []
    for _ in range(800):
        drawn = rng.integers(200, size=200)
        both = (spearmanr(units[drawn, 0], units[drawn, 1]).statistic for units in (of.engine, of.reference))
        differences.append(next(both) - next(both))
    low, high = np.quantile(differences, [0.05, 0.975])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.12 * width)
    assert found.high == pytest.approx(high, abs=0.12 * width)


@pytest.mark.parametrize("metric", ["spearman", "macro-f1"])
def test_a_metric_without_a_way_of_its_own_is_resampled_one_by_one(made, metric):
    rng = np.random.default_rng(4)
    units, counts = rng.integers(0, 5, (60, 2)).astype(np.float64), rng.integers(0, 3, (7, 60)).astype(np.float64)
    own = made.metrics[metric]
    alone = weighted(replace(own, aggregate_weighted=None), units)
    assert alone(counts) == pytest.approx(weighted(own, units)(counts))


def test_a_corpus_metric_needs_a_hundred_pairs(made):
    found = made.decide(pairs(made, 0.001, count=99), "quality", margin=0.5)
    assert found.decision is OPEN
    assert "99 are too few" in found.reason


def test_a_corpus_metric_counts_groups(made):
    of = replace(pairs(made, 0.001, count=300), groups=np.repeat(np.arange(75), 4))
    assert "75 are too few" in made.decide(of, "quality", margin=0.5).reason


@pytest.mark.parametrize(("rows", "decision"), [(1000, PASS), (250, OPEN)])
def test_a_corpus_metric_without_changes_needs_rows_as_accuracy_does(made, rows, decision):
    labels = np.arange(rows) % 4
    units = np.stack([np.where(np.arange(rows) % 7, labels, 0), labels], axis=1)
    assert made.decide(made.outcomes(units, units, metric="macro-f1"), "quality", margin=0.01).decision is decision


def test_an_undefined_metric_decides_nothing(made):
    of = pairs(made, 0.1, count=200)
    constant = of.engine.copy()
    constant[:, 0] = 1.0
    found = made.decide(replace(of, engine=constant), "quality", margin=0.5)
    assert (found.decision, found.low) == (OPEN, None)
    assert "undefined" in found.reason


def test_undefined_resamples_decide_nothing(made):
    """One row that is not tied: a third of the resamples lack it."""
    of = pairs(made, 0.1, count=200)
    tied = of.engine.copy()
    tied[:, 0] = 0.0
    tied[0, 0] = 1.0
    found = made.decide(replace(of, engine=tied), "quality", margin=0.5)
    assert found.decision is OPEN
    assert re.search(r"undefined in 3\d\.\d% of the resamples", found.reason)


def test_an_engine_that_is_infinitely_worse_fails_and_writes_no_infinity(made):
    of = mae(made, 0.0)
    broken = of.engine.copy()
    broken[7] = np.inf
    found = made.decide(replace(of, engine=broken), "quality", margin=0.05)
    assert (found.decision, found.observed, found.low, found.high) == (FAIL, None, None, None)
    assert "not finite for 1 of 400" in found.reason


@pytest.mark.parametrize("who", ["engine", "reference"])
def test_what_is_not_a_number_never_passes(made, who):
    of = pairs(made, 0.0)
    broken = getattr(of, who).copy()
    broken[0, 0] = np.nan
    assert made.decide(replace(of, **{who: broken}), "quality", margin=1.5).decision is OPEN


@pytest.mark.parametrize(
    ("gate", "params"), [("quality", {"margin": 0.1}), ("floor", {"at_least": 0.1}), ("agreement", {"at_least": 0.1})]
)
def test_no_rows_decide_nothing(made, gate, params):
    found = made.decide(made.outcomes(np.empty(0), np.empty(0)), gate, **params)
    assert found.decision is OPEN
    assert found.reason.endswith(": there are no rows")


@pytest.mark.parametrize(("flipped", "decision"), [(20, PASS), (100, OPEN), (3000, OPEN)])
def test_without_labels_agreement_may_pass_and_never_fails(made, flipped, decision):
    found = made.decide(made.flips(0, flipped, 6000, labelled=False), "quality", margin=0.01)
    assert found.decision is decision
    assert found.notes == ("agreement-only",)
    assert (found.high, found.observed) == (None, pytest.approx(-flipped / 6000))


@pytest.mark.parametrize("metric", ["top-5", "macro-f1", "spearman", "mae"])
def test_without_labels_only_accuracy_is_bounded_by_flips(made, metric):
    found = made.decide(made.flips(0, 0, 6000, labelled=False, metric=metric), "quality", margin=0.5)
    assert found.decision is OPEN
    assert "there are no labels" in found.reason


def test_what_was_not_measured_is_said(made):
    nothing = made.evidence(evaluation=NotMeasured(reason="no NVIDIA driver"))
    found = made.decide(made.flips(0, 0, 1000, evidence=nothing), "quality", margin=0.5)
    assert (found.decision, found.reason) == (OPEN, "not measured: no NVIDIA driver")


def test_a_reference_that_was_not_measured_is_said(made):
    nothing = made.evidence(reference=NotMeasured(reason="the runner crashed"))
    found = made.decide(made.flips(0, 0, 1000, evidence=nothing), "quality", margin=0.5)
    assert (found.decision, found.reason) == (OPEN, "the float model was not measured: the runner crashed")


@pytest.mark.parametrize("accept", [("measured",), ("measured", "simulated")])
def test_evidence_of_another_kind_decides_only_where_it_is_accepted(made, accept):
    simulated = made.evidence(evaluation=made.evaluation(1000, kind="simulated"))
    found = made.decide(made.flips(0, 0, 1000, evidence=simulated), "quality", accept=accept, margin=0.5)
    assert found.decision is (PASS if "simulated" in accept else OPEN)
    assert found.kind == "simulated"
    if found.decision is OPEN:
        assert found.reason == "the evidence is simulated, and this gate accepts only measured"
        assert "`accept: [measured, simulated]`" in found.advice


@pytest.mark.parametrize(
    ("metric", "params", "message"),
    [
        ("accuracy", {"margin": 1.0}, "margin is 1, but accuracy only spans 0 to 1: anything would pass"),
        ("accuracy", {"margin": -0.1}, "margin is -0.1, it must be above 0"),
        ("accuracy", {"margin": 0}, "margin is 0, it must be above 0"),
        ("accuracy", {"margin": float("nan")}, "margin is nan, it must be a finite number"),
        ("mae", {"margin": float("inf")}, "margin is inf, it must be a finite number"),
        ("spearman", {"margin": 2.0}, "margin is 2, but spearman only spans -1 to 1"),
        ("accuracy", {"margin": 0.1, "confidence": 95}, "confidence is 95, it must lie between 0.5 and 1"),
        ("accuracy", {"margin": 0.1, "metric": "top-5"}, "metric is 'top-5', but the pipeline measures 'accuracy'"),
        ("accuracy", {"margn": 0.1}, "has no key 'margn'; did you mean 'margin'"),
        ("accuracy", {}, "margin: Field required"),
        ("accuracy", {"margin": "much"}, "margin: Input should be a valid number"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(made, metric, params, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        made.decide(made.flips(0, 0, 1000, metric=metric), "quality", **params)


@pytest.mark.parametrize("metric", ["mae", "spearman"])
def test_a_margin_inside_the_span_is_accepted(made, metric):
    params = made.gates["quality"].params(margin=1.5)
    assert made.gates["quality"].check(params, made.metrics[metric]) is None


def test_a_float_model_that_knows_nothing_proves_nothing(made):
    """Labels of other rows, or an output that is no scores: 0 of 2,000 right before and after is no PASS."""
    wrong = np.zeros(2000)
    found = made.decide(made.outcomes(wrong, wrong), "quality", margin=0.01)
    assert found.decision is OPEN
    assert "next to nothing right" in found.reason
    assert "data.output" in found.advice


@pytest.mark.parametrize(("right", "decision"), [(100, OPEN), (115, OPEN), (130, PASS)])
def test_a_float_model_that_guesses_proves_nothing(made, right, decision):
    """Of 1,000 rows in ten classes 116 or more right exclude guessing (binomial, .95)."""
    reference = (np.arange(1000) < right).astype(float)
    outcomes = made.outcomes(reference, reference)
    sure = replace(outcomes.evidence, reference=replace(outcomes.evidence.reference, guessing=0.1))
    found = made.decide(replace(outcomes, evidence=sure), "quality", margin=0.01)
    assert found.decision is decision
    assert ("not shown to be better than guessing (0.1)" in found.reason) == (decision is OPEN)
