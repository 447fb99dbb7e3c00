"""Evidence that is odd in one way: evenly split groups, few changes, a process without samples, a limit met exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from qpipe.gates.estimates.advice import two_digits
from qpipe.gates.estimates.level import share
from qpipe.gates.estimates.sample import changed_groups
from qpipe.gates.statistics.binomial import effective_rows, quantile_ranks
from qpipe.gates.statistics.latency import effective_samples, percentile_bounds
from qpipe.gates.statistics.tango import rows_without_loss
from qpipe.plugins.gate import Alpha
from qpipe.records.evidence import BatchProfile
from qpipe.records.verdict import Decision

PASS, FAIL, OPEN = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE


def timed(made, logs=(), samples=()):
    batch = BatchProfile(
        batch=1, latency_ms=(), baseline_ms=(), ratio=None, cpu_ratio=None, log_ratios=logs, samples=200
    )
    evidence = made.evidence(profile=made.profile(batches=(batch,)))
    return made.outcomes(np.ones(10), np.ones(10), evidence=evidence, latency_ms={1: samples})


def test_groups_that_all_split_evenly_are_worth_their_rows():
    hits = np.tile([0.0, 1.0], 50)
    assert effective_rows(hits, np.repeat(np.arange(50), 2)) == 100


def test_a_group_with_one_changed_row_has_changed():
    differs = np.array([True, False, False, False, True, True])
    assert changed_groups(differs, np.array([0, 0, 1, 1, 2, 2])) == (2, 3)


def test_without_labels_rows_of_a_group_are_no_rows_of_their_own(made):
    """Flips come by whole groups of ten: 20 of 600 groups bound the rate less than 200 of 6,000 rows would."""
    agreement = np.repeat(np.arange(600) >= 20, 10).astype(float)
    of = replace(made.flips(0, 0, 6000, labelled=False), agreement=agreement)
    alone = made.decide(of, "quality", margin=0.045)
    grouped = made.decide(replace(of, groups=np.repeat(np.arange(600), 10)), "quality", margin=0.045)
    assert (alone.decision, grouped.decision) == (PASS, OPEN)
    assert grouped.observed == alone.observed == pytest.approx(-1 / 30)
    assert -grouped.low == pytest.approx(0.0482, abs=2e-4)  # Clopper–Pearson, 20 of 600
    apart = replace(of, agreement=(np.arange(6000) % 30 > 0).astype(float), groups=np.repeat(np.arange(600), 10))
    assert made.decide(apart, "quality", margin=0.045).low == pytest.approx(alone.low, rel=1e-3)


def test_a_corpus_metric_with_few_changes_needs_the_bound_of_their_share(made):
    """Five rows of 300 moved by next to nothing: their share may be 3.5 %, whatever the bootstrap says."""
    reference = np.random.default_rng(3).normal(size=(300, 2))
    engine = reference.copy()
    engine[:5, 0] += 1e-6
    found = made.decide(made.outcomes(engine, reference, metric="spearman"), "quality", margin=0.01)
    assert found.decision is OPEN
    assert "only 5 of 300 differ from the float model, 20 needed" in found.reason
    assert made.decide(made.outcomes(engine, reference, metric="spearman"), "quality", margin=0.05).decision is PASS


def test_as_many_gains_as_losses_in_a_slice_are_no_surprise(made):
    """The screen counts both within the slice."""
    names = np.repeat(["even", "rest"], [300, 300])
    engine, reference = np.ones(600), np.ones(600)
    engine[:20], reference[20:40] = 0, 0
    of = made.outcomes(engine, reference, slices={"kind": names})
    assert [one.screen for one in made.decide(of, "slices", by="kind", margin=0.1).slices] == [False, False]
    reference[20:40] = 1
    of = made.outcomes(engine, reference, slices={"kind": names})
    assert [one.screen for one in made.decide(of, "slices", by="kind", margin=0.1).slices] == [True, False]


@pytest.mark.parametrize(("at_least", "advice"), [(0.9, False), (0.96, True), (0.99, False)])
def test_a_floor_has_advice_only_where_it_is_open(made, at_least, advice):
    hits = (np.arange(400) >= 14).astype(float)  # 0.965
    found = made.decide(made.outcomes(hits, hits), "floor", at_least=at_least)
    assert (found.decision is OPEN) is bool(found.advice) is advice


def test_rows_that_a_share_needs_count_what_groups_are_worth():
    """Ten copies of each row: the variance of a row is ten times as large."""
    hits = (np.arange(200) % 5 > 0).astype(float)
    alone = share(hits, None, Alpha())
    grouped = share(np.repeat(hits, 10), np.repeat(np.arange(200), 10), Alpha())
    assert alone.spread == pytest.approx(0.8 * 0.2, rel=0.15)  # with the rarer outcome at its upper 80 % bound
    assert grouped.spread / alone.spread == pytest.approx(10, rel=0.05)


def test_a_process_without_samples_is_not_passed_over(made):
    found = made.decide(timed(made, samples=(np.ones(300), np.empty(0))), "latency", p50={"at_most_ms": 2})
    assert (found.decision, found.reason) == (OPEN, "not measured: the evidence holds no raw samples")


@pytest.mark.parametrize(
    ("logs", "at_least"),
    [((-math.log(2) - 0.1, -math.log(2), -math.log(2) + 0.1), 2.0), ((-0.5, -0.7, -0.9), 2.001)],
    ids=["just what is wanted", "next to it"],
)
def test_a_speedup_at_its_limit_asks_for_no_number_of_processes(made, logs, at_least):
    found = made.decide(timed(made, logs), "speedup", at_least=at_least)
    assert found.decision is OPEN
    assert found.advice == "the observed speed-up is too near to the one wanted to be decided at a practical size"


@pytest.mark.parametrize(("count", "text"), [(7, 7), (98.2, 99), (99.2, 100), (1801, 1900), (12_001, 13_000)])
def test_advice_has_two_digits(count, text):
    assert two_digits(count) == text


def test_the_worst_slice_is_named_wherever_it_stands(made):
    names = np.repeat(["fine", "worst", "good"], 300)
    engine = np.ones(900)
    engine[:2] = engine[300:306] = 0
    found = made.decide(made.outcomes(engine, np.ones(900), slices={"kind": names}), "slices", by="kind", margin=0.1)
    assert found.observed == pytest.approx(-6 / 300)
    assert found.reason.startswith("all 3 slices by kind pass; worst is worst: ")
    engine[300:400] = 0
    found = made.decide(made.outcomes(engine, np.ones(900), slices={"kind": names}), "slices", by="kind", margin=0.1)
    assert found.reason.startswith("1 of 3 slices by kind fail; worst is worst: ")


def test_few_changes_show_the_difference_that_there_is(made):
    reference = np.full(1000, 0.9)
    engine = reference.copy()
    engine[:4] = 0.4
    found = made.decide(made.outcomes(engine, reference, metric="cosine"), "quality", margin=0.05)
    assert (found.decision, found.observed) == (PASS, pytest.approx(-0.002))


def test_the_last_rank_is_the_slowest_sample():
    """150 samples are worth some 70: enough for their largest to bound p95, and for nothing less."""
    samples = np.random.default_rng(0).permutation(np.arange(1.0, 151.0))
    worth = int(effective_samples((samples,), 0.95))
    assert quantile_ranks(worth, 0.95, 0.05)[1] == worth
    assert percentile_bounds((samples,), 0.95, 0.05)[2] == 150


def test_a_class_that_carries_the_whole_margin_needs_one_row():
    assert rows_without_loss(1.0, 0.05) == 1
