"""Error rates by simulation: quick ones with wide bands here, the full ones are marked slow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qpipe.gates.estimates.flips import paired_flips
from qpipe.gates.estimates.sample import sample_of
from qpipe.gates.statistics import latency, student, tango
from qpipe.plugins.gate import Alpha

BETWEEN, WITHIN = 0.025, 0.033
Z95 = stats.norm.ppf(0.95)


def some_pass(alpha: float, runs: int, seed: int) -> float:
    """Share of runs in which any of ten candidates at the margin passes: n = 2000, gain .01, loss .02, m = .01."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(2000, [0.01, 0.02, 0.97], size=(runs, 10))
    z = tango.score(drawn[..., 0].astype(float), drawn[..., 1].astype(float), 2000, -0.01)
    return float((z > stats.norm.ppf(1 - alpha)).any(axis=1).mean())


def test_ten_candidates_pass_too_often_uncorrected():
    # 20,000 runs: two standard errors are .007 and .003.
    assert some_pass(0.05, 20_000, 0) == pytest.approx(0.384, abs=0.015)
    assert some_pass(0.005, 20_000, 1) == pytest.approx(0.041, abs=0.006)


def grouped_changes(rng: np.random.Generator) -> np.ndarray:
    """400 groups × 5 rows at the margin .01 with ψ = .05: each row copies its group's outcome with chance .7."""
    chances, values = [0.02, 0.03, 0.95], np.array([1.0, -1.0, 0.0])
    shared = values[rng.choice(3, size=(400, 1), p=chances)]
    own = values[rng.choice(3, size=(400, 5), p=chances)]
    return np.where(rng.random((400, 5)) < 0.7, shared, own)


def passes_of_groups(runs: int, seed: int) -> tuple[float, float]:
    """Share of runs that pass: Tango that ignores groups, and t over clusters."""
    rng = np.random.default_rng(seed)
    groups, alone, clustered = np.repeat(np.arange(400), 5), 0, 0
    for _ in range(runs):
        change = grouped_changes(rng).ravel()
        z = tango.score(float((change > 0).sum()), float((change < 0).sum()), 2000, -0.01)
        alone += bool(z > Z95)
        clustered += student.bounds(change, groups)[0] > -0.01
    return alone / runs, clustered / runs


def test_groups_quick():
    alone, clustered = passes_of_groups(1500, 0)
    assert alone == pytest.approx(0.173, abs=0.03)
    assert clustered == pytest.approx(0.056, abs=0.02)


@pytest.mark.slow
def test_groups():
    alone, clustered = passes_of_groups(20_000, 1)
    assert alone == pytest.approx(0.173, abs=0.01)
    assert clustered == pytest.approx(0.056, abs=0.01)


def test_the_gate_uses_clusters(made):
    change = grouped_changes(np.random.default_rng(3)).ravel()
    engine, reference = np.where(change > 0, 1.0, np.where(change < 0, 0.0, 1.0)), (change <= 0) * 1.0
    groups = np.repeat(np.arange(400), 5)
    found = paired_flips(sample_of(made.outcomes(engine, reference, groups=groups), 0.01, Alpha()))
    clustered = student.bounds(change, groups)[0]
    assert clustered - 0.001 < found.low <= clustered  # the wider of it and Tango's, of as many rows as these are worth


def process_logs(rng: np.random.Generator, processes: int, rounds: int) -> np.ndarray:
    """Log ratios [processes, rounds] around 0: processes differ by sd .025, rounds by .033 (autocorrelation .5)."""
    from scipy.signal import lfilter

    start = rng.normal(size=(processes, 1))
    steps = np.concatenate([start, rng.normal(size=(processes, rounds - 1)) * np.sqrt(0.75)], axis=1)
    return BETWEEN * rng.normal(size=(processes, 1)) + WITHIN * lfilter([1], [1, -0.5], steps, axis=1)


def coverage(runs: int, seed: int) -> tuple[float, float]:
    """How often a 90 % interval holds the truth: from 40 rounds of one process, and by t over five."""
    rng = np.random.default_rng(seed)
    one, five = 0, 0
    for _ in range(runs):
        logs = process_logs(rng, 5, 40)
        low, high = student.bounds(logs[0])
        one += low <= 0 <= high
        _, low, high = latency.ratio_bounds(np.median(logs, axis=1))
        five += low <= 1 <= high
    return one / runs, five / runs


def test_coverage_of_latency():
    one, five = coverage(2000, 0)
    assert one == pytest.approx(0.26, abs=0.06)
    assert five == pytest.approx(0.90, abs=0.04)


def false_percentile_passes(runs: int, seed: int) -> float:
    """p95 exactly at its limit: how often it passes although processes differ."""
    rng = np.random.default_rng(seed)
    limit = float(np.exp(stats.norm.ppf(0.95) * np.hypot(BETWEEN, WITHIN)))
    passed = 0
    for _ in range(runs):
        samples = np.exp(process_logs(rng, 5, 40))
        above = latency.exceedance(samples, limit, 0.95, low_alpha=0.025, high_alpha=0.05)
        passed += above.high <= 0.05 or latency.process_bound(samples, 0.95, 0.05) <= limit
    return passed / runs


def test_a_percentile_at_its_limit_seldom_passes():
    assert false_percentile_passes(300, 0) <= 0.09


@pytest.mark.slow
def test_a_percentile_at_its_limit_seldom_passes_in_many_runs():
    assert false_percentile_passes(5000, 1) <= 0.07


def copied(rng: np.random.Generator, inputs: int, times: int, gain: float, loss: float) -> np.ndarray:
    """Changes of inputs that stand in the gate rows so many times each."""
    return np.repeat(rng.choice([1.0, -1.0, 0.0], size=inputs, p=[gain, loss, 1 - gain - loss]), times)


def passes_of_copies(made, runs: int, seed: int, *, inputs: int, times: int, gain: float, grouped: bool) -> float:
    """Share of runs at the margin .01 that pass, with copies as one group each or as rows."""
    rng, passed = np.random.default_rng(seed), 0
    groups = np.repeat(np.arange(inputs), times) if grouped else None
    for _ in range(runs):
        change = copied(rng, inputs, times, gain, gain + 0.01)
        engine, reference = np.where(change < 0, 0.0, 1.0), np.where(change > 0, 0.0, 1.0)
        found = paired_flips(sample_of(made.outcomes(engine, reference, groups=groups), 0.01, Alpha()))
        passed += found.low is not None and found.low > -0.01 and not found.no_pass
    return passed / runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "times", "gain", "by_rows"), [(500, 2, 0.02, 0.12), (500, 10, 0.02, 0.30), (3000, 2, 0.00005, 0.12)]
)
def test_copies_of_rows_prove_nothing(made, inputs, times, gain, by_rows):
    shape = {"inputs": inputs, "times": times, "gain": gain}
    assert passes_of_copies(made, 3000, 0, **shape, grouped=False) == pytest.approx(by_rows, abs=0.03)
    assert passes_of_copies(made, 3000, 0, **shape, grouped=True) <= 0.062


def test_a_few_copies_change_next_to_nothing(made):
    change = np.zeros(10_000)
    change[[5, 7]], change[[11, 13, 17]] = 1, -1
    engine, reference = np.where(change < 0, 0.0, 1.0), np.where(change > 0, 0.0, 1.0)
    groups = np.maximum(np.arange(10_000), 3)  # the first four rows are one input
    alone, grouped = (
        paired_flips(sample_of(made.outcomes(engine, reference, groups=found), 0.01, Alpha()))
        for found in (None, groups)
    )
    assert grouped.no_pass == alone.no_pass == grouped.undecidable == ""
    assert grouped.low == pytest.approx(alone.low, rel=1e-3)
    assert grouped.high == pytest.approx(alone.high, rel=1e-3)


def test_copies_are_worth_the_inputs_that_they_are_of(made):
    rows = made.flips(4, 9, 900)
    tripled = made.outcomes(
        *(np.repeat(units, 3) for units in (rows.engine, rows.reference)), groups=np.repeat(np.arange(900), 3)
    )
    once, thrice = (paired_flips(sample_of(found, 0.02, Alpha())) for found in (rows, tripled))
    assert thrice.low <= once.low + 1e-6
    assert thrice.high >= once.high - 1e-6
    assert bool(thrice.no_pass) == bool(once.no_pass)


def test_advice_on_copies_counts_rows_for_the_groups_that_are_missing(made):
    """299 inputs without a loss pass at .05; of 200 that stand twice 99 are missing, 198 rows as these come."""
    right = np.ones(400)
    found = made.decide(made.outcomes(right, right, groups=np.repeat(np.arange(200), 2)), "quality", margin=0.01)
    assert "299 are needed" in found.reason
    assert found.advice.startswith("about 200 more rows")
