"""The statistics against published or exactly enumerated numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, xlogy
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from qpipe.gates.estimates.flips import paired_flips
from qpipe.gates.estimates.sample import sample_of
from qpipe.gates.statistics import (
    binomial,
    bootstrap,
    clusters,
    latency,
    multiple,
    skewness,
    student,
    tango,
    unconditional,
)
from qpipe.plugins.gate import Alpha

Z95 = stats.norm.ppf(0.95)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((40, 50, 4846), -0.005357, 0.001174),
        ((20, 30, 2000), -0.011074, 0.000837),
        ((1, 9, 100), -0.140151, -0.033066),
    ],
)
def test_tango_bounds(table, low, high):
    assert tango.bounds(*table) == pytest.approx((low, high), abs=5e-7)


def test_tango_bounds_mirror_when_gains_and_losses_swap():
    low, high = tango.bounds(9, 1, 100, low_alpha=0.025, high_alpha=0.025)
    assert tango.bounds(1, 9, 100, low_alpha=0.025, high_alpha=0.025) == pytest.approx((-high, -low), abs=1e-12)


def test_zero_flips_pass_raw_at_268_and_guarded_at_299():
    assert tango.score(0, 0, 268, -0.01) > Z95 > tango.score(0, 0, 267, -0.01)
    assert tango.guard(0, 299, 0.01) <= 0.05 < tango.guard(0, 298, 0.01)
    assert tango.rows_without_loss(0.01, 0.05) == 299


def tables_at_the_margin(rows: int, flip_rate: float, margin: float) -> tuple[np.ndarray, ...]:
    """Gains, losses, the chance of each table that is likely at all, and its score."""
    gain, loss = (flip_rate - margin) / 2, (flip_rate + margin) / 2
    most = min(rows, int(rows * flip_rate + 12 * np.sqrt(rows * flip_rate) + 12))
    b, c = np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij")
    rest = np.maximum(rows - b - c, 0)
    ways = gammaln(rows + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(rest + 1)
    log_p = ways + xlogy(b, gain) + xlogy(c, loss) + xlogy(rest, 1 - gain - loss)
    chance = np.where(b + c <= rows, np.exp(log_p), 0.0)
    assert chance.sum() == pytest.approx(1, abs=1e-6)
    return b, c, chance, tango.score(b, c, rows, -margin)


def test_error_rates_at_the_margin_by_exact_enumeration():
    _, _, chance, z = tables_at_the_margin(1000, 0.05, 0.01)
    assert (chance[z > Z95].sum(), chance[z < -Z95].sum()) == pytest.approx((0.0488, 0.0510), abs=5e-5)


def decisions_at_the_margin(rows: int, flip_rate: float, margin: float) -> tuple[float, float]:
    """Chances of PASS at .05, with the guard, and of FAIL at .025."""
    b, c, chance, z = tables_at_the_margin(rows, flip_rate, margin)
    passed = (z > Z95) & ((b + c >= tango.FEW_FLIPS) | (tango.guard(c, rows, margin) <= 0.05))
    failed = z < stats.norm.ppf(0.025)
    # What lies far below fails by the exact p too.
    for gains, losses in np.argwhere(failed & (z > -3.5) & (chance > 1e-7)):
        if gains + losses < unconditional.MOST_FLIPS:
            failed[gains, losses] = unconditional.p_worse(int(gains), int(losses), rows, margin) <= 0.025
    return chance[passed].sum(), chance[failed].sum()


@pytest.mark.parametrize("rows", [100, 200, 300, 400, 500, 1000, 2000])
@pytest.mark.parametrize("flip_rate", [0.01, 0.012])
def test_guarded_error_rates_over_the_grid(rows, flip_rate):
    passed, failed = decisions_at_the_margin(rows, flip_rate, 0.01)
    assert passed <= 0.052
    assert failed <= 0.025


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.002, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("flips", [1.0, 1.1, 1.5, 3.0])
@pytest.mark.parametrize("losses", [1, 2, 4, 8, 12, 16, 20, 25, 40])
def test_guarded_error_rates_wherever_flips_are_few(losses, flips, margin):
    """`losses` are the rows that the margin is worth, `flips` the flip rate in margins."""
    if flips * margin <= 1:
        passed, failed = decisions_at_the_margin(round(losses / margin), flips * margin, margin)
        assert passed <= 0.0525
        assert failed <= 0.025


def test_the_exact_p_is_that_of_another_program():
    """Table [[5, 0], [1, 8]]: two-sided p = .542071 by `McNemar_exact_unconditional_test_paired_2x2` of R's
    contingencytables (Fagerland, Lydersen & Laake 2017), whose confidence set of the flip rate misses it with 1e−4."""
    assert 2 * unconditional.p_worse(0, 1, 14, 0.0) == pytest.approx(0.542071, abs=1.5e-4)


@pytest.mark.parametrize("table", [(0, 7, 200, 0.01), (1, 9, 100, 0.05), (2, 18, 20, 0.5), (60, 90, 150, 0.1)])
def test_the_exact_p_is_the_largest_over_all_tables_as_bad(table):
    """Every table of so many rows, by scipy's multinomial law."""
    gains, losses, rows, margin = table
    b, c = (counts.ravel() for counts in np.indices((rows + 1, rows + 1)))
    bad = (b + c <= rows) & (tango.score(b, c, rows, -margin) <= tango.score(gains, losses, rows, -margin) + 1e-9)
    tables = np.stack([b, c, rows - b - c], axis=1)[bad]
    rates = np.linspace(*unconditional.flip_rates(gains + losses, rows, margin), 50)
    chances = [stats.multinomial.pmf(tables, rows, [(r - margin) / 2, (r + margin) / 2, 1 - r]).sum() for r in rates]
    assert unconditional.p_worse(*table) == pytest.approx(max(chances), rel=0.005)


@pytest.mark.parametrize(("table", "fails"), [((0, 7, 200), True), ((0, 17, 1000), False), ((0, 20, 900), True)])
def test_an_interval_fails_where_the_exact_p_does(made, table, fails):
    """Seven losses in 200 rows: p is .013 by the score, .018 exactly; seventeen in 1,000: .0131 and .0266."""
    found = paired_flips(sample_of(made.flips(*table[:2], table[2]), 0.01, Alpha()))
    assert found.p_fail == pytest.approx(unconditional.p_worse(*table, 0.01))
    assert (found.high < -0.01) is (found.p_fail <= 0.025) is fails


def test_an_interval_of_groups_fails_where_its_p_does(made):
    """Pairs of rows that lose a bit more than the margin: sometimes t is the wider one, sometimes Tango's interval."""
    failed = set()
    for seed in range(60):
        pairs = np.random.default_rng(seed).choice([-1.0, 0.0, 1.0], 150, p=[0.07, 0.92, 0.01]).repeat(2)
        of = made.outcomes(1.0 * (pairs >= 0), 1.0 * (pairs <= 0), groups=np.arange(150).repeat(2))
        found = paired_flips(sample_of(of, 0.02, Alpha()))
        assert (found.high < -0.02) is (found.p_fail <= 0.025)
        failed.add(found.high < -0.02)
    assert failed == {True, False}


def test_the_exact_p_of_no_more_losses_than_the_margin_is_one():
    assert unconditional.p_worse(0, 0, 100, 0.01) == 1.0


def test_all_gains_but_a_share_of_1e_8_are_summed_over():
    rates = np.array([0.0101, 0.02, 0.2, 0.9])
    for rate, gains in zip(rates, unconditional.likely_gains(1000, rates, 0.01), strict=True):
        assert stats.binom.pmf(gains, 1000, (rate - 0.01) / 2).sum() > 1 - 1e-8


@pytest.mark.parametrize("rows", [2, 150])
def test_student_without_groups_is_the_paired_t_test(rows):
    rng = np.random.default_rng(0)
    values = rng.normal(0.1, 1, rows)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.90)
    assert student.bounds(values) == pytest.approx((expected.low, expected.high))
    assert student.bounds(values, np.arange(rows)) == pytest.approx((expected.low, expected.high))
    assert student.p_below(values, 0.2) == pytest.approx(stats.ttest_1samp(values, 0.2, alternative="less").pvalue)


def test_clusters_are_the_sandwich_of_statsmodels():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    values = rng.normal(size=40)[groups] + rng.normal(size=len(groups))
    fit = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    error, count = student.standard_error(values, groups)
    # statsmodels multiplies by G/(G−1) · (n−1)/(n−k), which is G/(G−1) for a single column.
    assert error == pytest.approx(float(fit.bse[0]), rel=1e-9)
    assert count == 40


@pytest.mark.parametrize(("hits", "rows"), [(0, 30), (17, 200), (200, 200)])
def test_clopper_pearson_as_statsmodels(hits, rows):
    low, high = proportion_confint(hits, rows, alpha=0.10, method="beta")
    assert binomial.lower(hits, rows, 0.05) == pytest.approx(low)
    assert binomial.upper(hits, rows, 0.05) == pytest.approx(high)


def test_effective_rows_of_copies_are_the_groups():
    rng = np.random.default_rng(2)
    hits = np.repeat(rng.integers(0, 2, 300), 5).astype(np.float64)
    groups = np.repeat(np.arange(300), 5)
    assert binomial.effective_rows(hits, groups) == pytest.approx(300, rel=0.01)
    assert binomial.effective_rows(hits, None) == 1500
    assert binomial.effective_rows(np.ones(1500), groups) == 300


@pytest.mark.parametrize(
    ("rows", "q", "ranks"),
    [(200, 0.95, (185, 196)), (298, 0.99, (292, None)), (299, 0.99, (293, 299)), (1, 0.5, (None, None))],
)
def test_ranks_that_bound_a_percentile(rows, q, ranks):
    assert binomial.quantile_ranks(rows, q, 0.05) == ranks


def test_samples_that_spread_evenly_are_worth_their_number():
    """Dealt round robin to 20 blocks: only the uncertainty of a variance between 20 blocks is left."""
    samples = np.arange(1.0, 2001.0).reshape(100, 20).T.reshape(5, 400)
    worth = latency.effective_samples(samples, 0.95)
    assert worth == pytest.approx(2000 * (stats.norm.ppf(0.95) / stats.t.ppf(0.95, 19)) ** 2)
    value, low, high = latency.percentile_bounds(samples, 0.95)
    assert value == pytest.approx(1900.05)
    # About z · sqrt(n q (1 − q)) ranks away: 1.645 · 9.75 · sqrt(2000 / worth).
    assert (value - low, high - value) == pytest.approx((16.9, 16.9), abs=4)


def test_samples_that_are_alike_within_a_process_are_worth_as_many_as_processes():
    samples = np.repeat(np.array([1.0, 1.1, 1.2, 1.3, 9.0])[:, None], 100, axis=1)
    assert latency.effective_samples(samples, 0.5) <= 5
    assert latency.effective_samples(samples[3:], 0.5) <= 2
    high = latency.percentile_bounds(samples, 0.95)[2]
    assert high == latency.process_bound(tuple(samples), 0.95, 0.05) > 9
    assert latency.percentile_bounds(samples[:2], 0.95)[2] is None, "two processes say nothing of others"


def test_a_few_slow_samples_do_not_bound_the_median_where_processes_differ():
    """Five processes at .057 … .076 ms, one sample of 6.2: the median's bound was 6.2, p90's .12."""
    rng = np.random.default_rng(0)
    samples = np.array([0.0566, 0.0757, 0.0716, 0.0725, 0.0626])[:, None] * rng.lognormal(0, 0.02, (5, 400))
    samples[2, 7] = 6.2
    value, _, high = latency.percentile_bounds(samples, 0.5)
    assert value < high < 0.09


def test_the_bound_over_processes_has_the_tabulated_factor():
    """k = 4.203 for five normal values, content and confidence .95 (Krishnamoorthy & Mathew, table B1)."""
    logs = np.log([1.0, 1.02, 0.99, 1.01, 1.03])
    samples = [np.full(40, value) for value in np.exp(logs)]
    expected = np.exp(logs.mean() + 4.203 * logs.std(ddof=1))
    assert latency.process_bound(samples, 0.95, 0.05) == pytest.approx(expected, rel=1e-4)
    assert latency.process_bound(samples[:4], 0.95, 0.05) == np.inf


def test_ratio_of_processes_is_t_in_logarithms():
    logs = np.log([0.50, 0.52, 0.49, 0.51, 0.50])
    ratio, low, high = latency.ratio_bounds(logs)
    half = stats.t.ppf(0.95, 4) * logs.std(ddof=1) / np.sqrt(5)
    assert np.log([ratio, low, high]) == pytest.approx([logs.mean(), logs.mean() - half, logs.mean() + half])


def test_holm_as_statsmodels():
    p_values = [0.001, 0.02, 0.04, 0.012, 0.5, 0.0049]
    assert multiple.holm(p_values, 0.05) == tuple(multipletests(p_values, 0.05, "holm")[0])
    assert multiple.holm([], 0.05) == ()


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (3, 9), (9, 3), (0, 6), (400, 460)])
def test_mid_p_of_mcnemar(gains, losses):
    flips = gains + losses
    expected = stats.binom.sf(losses, flips, 0.5) + stats.binom.pmf(losses, flips, 0.5) / 2 if flips else 1.0
    assert multiple.mcnemar_mid_p(gains, losses) == pytest.approx(expected)


def means_of(values: np.ndarray):
    return lambda counts: counts @ values / counts.sum(axis=1)


@pytest.mark.parametrize("whole", [False, True], ids=["skewed", "whole numbers, whose means tie"])
def test_bca_as_scipy(whole):
    rng = np.random.default_rng(4)
    values = rng.poisson(1, 25) if whole else rng.lognormal(size=25)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=2000, confidence_level=0.90, rng=6)
    ours = bootstrap.resample(means_of(values), 25, groups=None, strata=None, seed=5, replicates=2000)
    assert ours.values.std() == pytest.approx(theirs.standard_error, rel=0.05)
    found = replace(ours, values=theirs.bootstrap_distribution)
    assert (bootstrap.bound(found, 0.05), bootstrap.bound(found, 0.95)) == pytest.approx(theirs.confidence_interval)


def test_bounds_of_resamples_are_no_narrower_than_by_jackknife():
    """Of a mean the pseudo-values are the values themselves, so that the bounds are those of its skewed rows."""
    values = -np.random.default_rng(4).lognormal(0, 1.5, 200)
    found = bootstrap.resample(means_of(values), 200, groups=None, strata=None, seed=5)
    low, high = bootstrap.bounds(found, low_alpha=0.05, high_alpha=0.025)
    by_rows = skewness.bounds(values, low_alpha=0.05, high_alpha=0.025)
    assert low == pytest.approx(min(bootstrap.bound(found, 0.05), by_rows[0]))
    assert high == pytest.approx(max(bootstrap.bound(found, 0.975), by_rows[1]))
    assert low < bootstrap.bound(found, 0.05) - 0.01
    assert bootstrap.p_at_least(found, -1.0) >= skewness.p_below(values, -1.0)


def test_large_groups_that_miss_are_counted_as_one_while_few_carry_the_variance():
    """Kish: sizes 1 … 1, 11 are worth (Σ s)² / Σ s² rows; equal groups their number."""
    hits, groups = np.ones(40), np.r_[np.arange(29), np.full(11, 29)]
    assert clusters.worth(hits, groups, 0.05) == pytest.approx(40**2 / (29 + 121))
    hits[-11:] = 0
    assert clusters.worth(hits, groups, 0.05) <= 40**2 / (29 + 121)
    assert clusters.worth(hits, None, 0.05) == 40
    assert clusters.worth(np.ones(1500), np.repeat(np.arange(300), 5), 0.05) == pytest.approx(300)


def test_a_seed_gives_the_same_replicates_whatever_the_chunks(monkeypatch):
    values = np.random.default_rng(5).normal(size=50)
    first = bootstrap.resample(means_of(values), 50, groups=None, strata=None, seed=1, replicates=300)
    monkeypatch.setattr(bootstrap, "CELLS", 50 * 70)
    again = bootstrap.resample(means_of(values), 50, groups=None, strata=None, seed=1, replicates=300)
    other = bootstrap.resample(means_of(values), 50, groups=None, strata=None, seed=2, replicates=300)
    assert np.allclose(first.values, again.values)
    assert not np.allclose(first.values, other.values)


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(60), 5)
    values = np.repeat(rng.normal(size=60), 5)
    found = bootstrap.resample(means_of(values), 300, groups=groups, strata=None, seed=1)
    alone = bootstrap.resample(means_of(values), 300, groups=None, strata=None, seed=1)
    assert found.values.std() / alone.values.std() == pytest.approx(np.sqrt(5), rel=0.1)


def test_strata_keep_their_numbers():
    strata = np.repeat([0, 1], [90, 10])
    share = bootstrap.resample(means_of(strata.astype(float)), 100, groups=None, strata=strata, seed=1, replicates=50)
    assert (share.values == 0.1).all()


@pytest.mark.parametrize("skewed", [False, True])
def test_bounds_of_skewed_values_are_the_wider_of_t_and_hall(skewed):
    """Hall's transformation written out as a cubic, inverted with a root finder."""
    from scipy.optimize import brentq

    values = np.random.default_rng(3).lognormal(0, 1.0 if skewed else 0.01, 150)
    skew, error = stats.skew(values) / np.sqrt(150), stats.sem(values)

    def bent(q: float) -> float:
        wanted = stats.t.ppf(q, 149)
        return brentq(lambda t: t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6 - wanted, -40, 40, xtol=1e-12)

    low, high = skewness.bounds(values, low_alpha=0.05, high_alpha=0.025)
    by_t = stats.t.ppf([0.95, 0.975], 149)
    assert low == pytest.approx(values.mean() - error * max(by_t[0], bent(0.95)))
    assert high == pytest.approx(values.mean() + error * max(by_t[1], -bent(0.025)))
    assert skewness.bounds(values, np.arange(150)) == pytest.approx(skewness.bounds(values))
    for alpha, bound in ((0.025, high), (0.05, skewness.bounds(values, high_alpha=0.05)[1])):
        assert skewness.p_below(values, bound, np.arange(150)) == pytest.approx(alpha)


def test_values_that_do_not_differ_have_no_skewness():
    assert skewness.bounds(np.full(100, 0.5)) == (0.5, 0.5)
    assert [skewness.p_below(np.full(100, 0.5), limit) for limit in (0.6, 0.5, 0.4)] == [0.0, 1.0, 1.0]


def passes_and_fails(losses: np.ndarray, margin: float) -> tuple[float, float]:
    """Shares of samples [samples, rows] that pass and fail although the mean loss is the margin."""
    bounds = np.array([skewness.bounds(-one, low_alpha=0.05, high_alpha=0.025) for one in losses])
    return float((bounds[:, 0] > -margin).mean()), float((bounds[:, 1] < -margin).mean())


def test_skewed_losses_pass_less_often_than_by_t():
    """Exponential losses at the margin: by t .076 of 100 rows pass, without the skewness .053."""
    losses = np.random.default_rng(4).exponential(size=(4000, 100))
    by_t = np.mean([student.bounds(-one)[0] > -1 for one in losses[:1500]])
    passed, failed = passes_and_fails(losses, 1.0)
    assert by_t > 0.065
    assert passed <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
    assert failed <= 0.025
