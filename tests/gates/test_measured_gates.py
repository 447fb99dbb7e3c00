"""The gates of time, memory, size, placement, facts and finiteness: three values each, and what is not measured."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from qpipe.errors import ConfigError
from qpipe.records.engine import Fact, FloatNode, Placement
from qpipe.records.evidence import BatchProfile, NotMeasured
from qpipe.records.verdict import Decision

PASS, FAIL, OPEN = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE
MIB = 2**20


def batch(logs: tuple[float, ...] = (), size: int = 1) -> BatchProfile:
    return BatchProfile(
        batch=size, latency_ms=(), baseline_ms=(), ratio=None, cpu_ratio=None, log_ratios=logs, samples=200
    )


def timed(made, *batches: BatchProfile, latency=None, **changes):
    evidence = made.evidence(profile=made.profile(batches=batches, **changes))
    return made.outcomes(np.ones(10), np.ones(10), evidence=evidence, latency_ms=latency or {})


FAST = tuple(math.log(ratio) for ratio in (0.50, 0.52, 0.49, 0.51, 0.50))


@pytest.mark.parametrize(("at_least", "decision"), [(1.2, PASS), (1.98, OPEN), (2.5, FAIL)])
def test_speedup_has_three_values(made, at_least, decision):
    found = made.decide(timed(made, batch(FAST)), "speedup", at_least=at_least)
    assert found.decision is decision
    assert found.observed == pytest.approx(1 / np.exp(np.mean(FAST)))
    assert found.low < found.observed < found.high
    assert (found.limit, found.n, found.kind) == (at_least, 5, "measured")
    assert bool(found.advice) is (decision is OPEN)


@pytest.mark.parametrize(("at_least", "more"), [(1.955, 12), (2.02, 10)])
def test_an_open_speedup_asks_for_processes(made, at_least, more):
    """(1.645 or, to fail, 1.96 + .842)² · s² / away², and two for t: 14.01 and 12.74 processes, five are here."""
    advice = made.decide(timed(made, batch(FAST)), "speedup", at_least=at_least).advice
    assert advice == f"about {more} more processes would decide, if the observed speed-up is the true one"


def test_a_speedup_says_what_it_takes_for_granted(made):
    """Were 1 − .05^(1/5) = .451 of all processes 3.053 times as slow, the mean over all would be the limit."""
    reason = made.decide(timed(made, batch(FAST)), "speedup", at_least=1.2).reason
    assert "(up to 45%, which 5 need not show) are less than 3.053 times as slow as these" in reason


def test_times_need_no_float_model_that_was_evaluated(made):
    of = timed(made, batch(FAST))
    blind = replace(of, evidence=replace(of.evidence, reference=NotMeasured(reason="no labels")))
    assert made.decide(blind, "speedup", at_least=1.2).decision is PASS


def test_speedup_of_a_named_batch(made):
    of = timed(made, batch(FAST), batch(tuple(-log for log in FAST), size=8))
    assert made.decide(of, "speedup", at_least=1.2).decision is PASS
    assert made.decide(of, "speedup", at_least=1.2, batch=8).decision is FAIL
    found = made.decide(of, "speedup", at_least=1.2, batch=4)
    assert (found.decision, found.reason) == (OPEN, "not measured: batch 4 was not profiled (only 1, 8)")


@pytest.mark.parametrize("gate", ["speedup", "latency"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"drifted": True, "voided": 2}, "the machine drifted (2 runs voided)"),
        ({"drifted": True, "drift": "the ratio moved by +9 %"}, "the machine drifted: the ratio moved by +9 %"),
        ({"outputs_match": False}, "the outputs of the timed run differ"),
        ({"kind": "estimated"}, "the evidence is estimated, and this gate accepts only measured"),
    ],
)
def test_times_that_cannot_be_trusted_are_open(made, gate, changes, reason):
    params = {"at_least": 1.2} if gate == "speedup" else {"p95": {"at_most_ms": 1e6}}
    found = made.decide(timed(made, batch(FAST), latency={1: steady()}, **changes), gate, **params)
    assert found.decision is OPEN
    assert reason in found.reason


@pytest.mark.parametrize(
    ("gate", "params"),
    [("speedup", {"at_least": 1.2}), ("latency", {"p95": {"at_most_ms": 1e6}}), ("memory", {"at_most_mib": 1e6})],
)
def test_without_a_profile_it_is_open(made, gate, params):
    of = made.outcomes(np.ones(10), np.ones(10), evidence=made.evidence(profile=NotMeasured(reason="no driver")))
    found = made.decide(of, gate, **params)
    assert (found.decision, found.reason) == (OPEN, "not measured: no driver")


@pytest.mark.parametrize("logs", [(), FAST[:2], (*FAST[:2], float("nan"))])
def test_speedup_needs_three_processes(made, logs):
    assert made.decide(timed(made, batch(logs)), "speedup", at_least=0.1).decision is OPEN


def steady(processes: int = 5, rounds: int = 200, spread: float = 0.05):
    rng = np.random.default_rng(0)
    return tuple(2.0 * np.exp(spread * rng.normal(size=rounds)) for _ in range(processes))


@pytest.mark.parametrize(("limit", "decision"), [(2.5, PASS), (2.17, OPEN), (1.9, FAIL)])
def test_latency_has_three_values(made, limit, decision):
    found = made.decide(timed(made, batch(), latency={1: steady()}), "latency", p95={"at_most_ms": limit})
    assert found.decision is decision
    assert found.low < found.observed < found.high
    assert (found.limit, found.n, found.kind) == (limit, 1000, "measured")
    assert found.advice == ("more processes would narrow the interval" if decision is OPEN else "")


def test_latency_in_the_other_notation(made):
    of = timed(made, batch(), latency={1: steady()})
    named = made.decide(of, "latency", percentile="p90", at_most_ms=2.5)
    assert named == made.decide(of, "latency", p90={"at_most_ms": 2.5})


def test_latency_of_several_percentiles_must_keep_all(made):
    of = timed(made, batch(), latency={1: steady()})
    both = made.decide(of, "latency", p50={"at_most_ms": 2.5}, p95={"at_most_ms": 1.9})
    assert both.decision is FAIL
    assert {one.name: one.decision for one in both.slices} == {"p50": PASS, "p95": FAIL}


@pytest.mark.parametrize(("percentile", "rounds"), [("p95", 39), ("p99", 99)])
def test_latency_needs_samples(made, percentile, rounds):
    of = timed(made, batch(), latency={1: steady(rounds=rounds)})
    found = made.decide(of, "latency", percentile=percentile, at_most_ms=1e6)
    assert found.decision is OPEN
    assert re.search(r"needs \d+ samples, about \d+ more", found.advice)


def test_latency_far_below_its_limit_passes_though_processes_differ(made):
    samples = tuple(one * shift for one, shift in zip(steady(spread=0.001), (1, 1.05, 0.97, 1.02, 0.99), strict=True))
    assert made.decide(timed(made, batch(), latency={1: samples}), "latency", p95={"at_most_ms": 4}).decision is PASS


def test_latency_passes_by_its_samples_where_processes_are_few(made):
    of = timed(made, batch(), latency={1: steady(processes=3)})
    assert made.decide(of, "latency", p95={"at_most_ms": 2.5}).decision is PASS


def test_latency_without_raw_samples_is_open(made):
    found = made.decide(timed(made, batch()), "latency", p95={"at_most_ms": 1e6})
    assert (found.decision, found.reason) == (OPEN, "not measured: the evidence holds no raw samples")


@pytest.mark.parametrize(
    ("peaks", "decision"), [((90, 95, 100), PASS), ((90, 100, 101), OPEN), ((101, 102, 103), FAIL), ((90, 91), OPEN)]
)
def test_memory_has_three_values(made, peaks, decision):
    of = timed(made, peak_rss_bytes=tuple(peak * MIB for peak in peaks))
    found = made.decide(of, "memory", at_most_mib=100)
    assert found.decision is decision
    if len(peaks) == 3:
        assert (found.low, found.high) == (peaks[0], peaks[-1])


@pytest.mark.parametrize(
    ("params", "decision", "observed"),
    [
        ({"at_most_ratio": 0.3}, PASS, 0.3),
        ({"at_most_ratio": 0.29}, FAIL, 0.3),
        ({"at_most_mib": 0.02}, FAIL, 30_000 / MIB),
        ({"at_most_ratio": 0.3, "at_most_mib": 0.02}, FAIL, 30_000 / MIB),
    ],
)
def test_size_is_exact(made, params, decision, observed):
    found = made.decide(made.flips(0, 0, 10), "size", **params)
    assert (found.decision, found.observed) == (decision, observed)


def test_size_without_a_float_engine_is_open(made):
    nothing = made.outcomes(np.ones(9), np.ones(9), evidence=made.evidence(baseline_size_bytes=0))
    assert made.decide(nothing, "size", at_most_ratio=0.9).decision is OPEN
    assert made.decide(nothing, "size", at_most_mib=0.9).decision is PASS


def placed(made, integer: int, in_float: int, elsewhere: int = 0):
    left = tuple(FloatNode(name=f"Conv_{i}", op="Conv", reason="no integer kernel") for i in range(in_float))
    placement = Placement(integer=integer, float=in_float, elsewhere=elsewhere, left_in_float=left)
    return made.outcomes(np.ones(9), np.ones(9), evidence=made.evidence(placement=placement))


@pytest.mark.parametrize(
    ("nodes", "params", "decision"),
    [
        ((20, 0, 0), {"at_least_integer_share": 1.0}, PASS),
        ((19, 1, 0), {"at_least_integer_share": 0.95}, PASS),
        ((18, 2, 0), {"at_least_integer_share": 0.95}, FAIL),
        ((20, 0, 1), {"at_least_integer_share": 0.95}, FAIL),
        ((20, 0, 1), {"at_least_integer_share": 0.95, "elsewhere": 1}, PASS),
        ((0, 20, 0), {}, PASS),
        ((0, 0, 0), {"at_least_integer_share": 0.5}, OPEN),
    ],
)
def test_placement_is_exact(made, nodes, params, decision):
    found = made.decide(placed(made, *nodes), "placement", **params)
    assert found.decision is decision
    assert found.limit in {*params.values(), 0}


def test_placement_names_what_stayed_in_float(made):
    found = made.decide(placed(made, 1, 1), "placement", at_least_integer_share=0.9)
    assert "Conv_0 (Conv): no integer kernel" in found.reason


def test_placement_that_no_backend_reports_is_open(made):
    assert made.decide(made.flips(0, 0, 10), "placement").reason == "not measured: the backend reports no placement"


@pytest.mark.parametrize(("bad", "decision"), [(0, PASS), (3, FAIL)])
def test_finite_is_exact(made, bad, decision):
    evidence = made.evidence(evaluation=made.evaluation(100, nonfinite_rows=bad))
    found = made.decide(made.outcomes(np.ones(100), np.ones(100), evidence=evidence), "finite")
    assert (found.decision, found.observed, found.n) == (decision, bad, 100)


FACTS = (
    Fact(name="arena_bytes", value=65_536, unit="bytes", kind="measured"),
    Fact(name="flash", value=100, unit="KiB", kind="estimated"),
    Fact(name="sram", value=3, unit="parsecs", kind="measured"),
    Fact(name="npu_share", value=93.1, unit="%", kind="measured"),
    Fact(name="cycles", value=12_000, unit="cycles", kind="measured"),
)


@pytest.mark.parametrize(
    ("gate", "params", "decision"),
    [
        ("arena", {"at_most_kib": 64}, PASS),
        ("arena", {"at_most_kib": 63}, FAIL),
        ("flash", {"at_most_kib": 200}, OPEN),
        ("sram", {"at_most_kib": 200}, OPEN),
        ("npu_share", {"at_least": 0.931}, PASS),
        ("npu_share", {"at_least": 0.932}, FAIL),
        ("facts", {"name": "cycles", "at_most": 12_000}, PASS),
        ("facts", {"name": "cycles", "at_least": 1, "at_most": 11_999}, FAIL),
        ("facts", {"name": "cycles", "at_least": 12_001}, FAIL),
        ("facts", {"name": "joules", "at_most": 1}, OPEN),
    ],
)
def test_facts_are_exact(made, gate, params, decision):
    of = made.outcomes(np.ones(9), np.ones(9), evidence=made.evidence(facts=FACTS))
    assert made.decide(of, gate, **params).decision is decision


def test_an_estimate_decides_where_it_is_accepted(made):
    of = made.outcomes(np.ones(9), np.ones(9), evidence=made.evidence(facts=FACTS))
    found = made.decide(of, "flash", accept=("estimated",), at_most_kib=100)
    assert (found.decision, found.kind, found.observed) == (PASS, "estimated", 100)
    assert made.decide(of, "arena", at_most_kib=63).reason == "arena_bytes is 64 KiB, at most 63 wanted"


@pytest.mark.parametrize(("at_least", "decision"), [(0.6, PASS), (0.66, OPEN), (0.7, FAIL)])
def test_floor_of_a_share(made, at_least, decision):
    found = made.decide(made.flips(0, 0, 3000), "floor", at_least=at_least, metric="accuracy")
    assert (found.decision, found.observed) == (decision, pytest.approx(2 / 3))


@pytest.mark.parametrize(("at_most", "decision"), [(1.0, PASS), (0.8, OPEN), (0.6, FAIL)])
def test_floor_of_errors_is_a_ceiling(made, at_most, decision):
    errors = np.abs(np.random.default_rng(0).normal(size=900))
    found = made.decide(made.outcomes(errors, errors, metric="mae"), "floor", at_most=at_most)
    assert (found.decision, found.limit) == (decision, at_most)


@pytest.mark.parametrize(("at_least", "decision"), [(0.8, PASS), (0.9, OPEN), (0.97, FAIL)])
def test_floor_of_a_corpus_metric(made, at_least, decision):
    rng = np.random.default_rng(1)
    score = rng.normal(size=400)
    units = np.stack([score + 0.45 * rng.normal(size=400), score], axis=1)
    found = made.decide(made.outcomes(units, units, metric="spearman"), "floor", at_least=at_least)
    assert found.decision is decision


def test_floor_needs_labels_and_finite_outputs(made):
    assert made.decide(made.flips(0, 0, 3000, labelled=False), "floor", at_least=0.1).decision is OPEN
    errors = np.r_[np.inf, np.ones(200)]
    assert made.decide(made.outcomes(errors, errors, metric="mae"), "floor", at_most=1e9).decision is FAIL


@pytest.mark.parametrize(("at_least", "decision"), [(0.97, PASS), (0.98, OPEN), (0.99, FAIL)])
def test_agreement_of_classes(made, at_least, decision):
    found = made.decide(made.flips(30, 30, 3000, labelled=False), "agreement", at_least=at_least)
    assert (found.decision, found.observed) == (decision, pytest.approx(0.98))


def test_agreement_of_one_number_a_row_decides_nothing(made):
    of = replace(made.outcomes(np.ones(500), np.ones(500), metric="mae"), agreement=np.full(500, np.nan))
    found = made.decide(of, "agreement", at_least=0.9)
    assert found.decision is OPEN
    assert "one number a row" in found.reason


def test_agreement_of_cosines(made):
    cosines = 1 - np.abs(np.random.default_rng(2).normal(0, 0.01, size=400))
    of = replace(made.flips(0, 0, 400, metric="mae"), agreement=cosines)
    assert made.decide(of, "agreement", at_least=0.97).decision is PASS
    assert made.decide(of, "agreement", at_least=0.995).decision is FAIL
    assert made.decide(replace(of, agreement=cosines[:50]), "agreement", at_least=0.5).decision is OPEN


@pytest.mark.parametrize(("rows", "decision"), [(297, OPEN), (298, PASS)])
def test_a_mean_cosine_needs_rows_that_would_show_a_lost_one(made, rows, decision):
    """Each hundredth row at −1 brings a mean of 1 down to .98; 298 rows without one exclude that by 95 %."""
    of = replace(made.flips(0, 0, rows, metric="mae"), agreement=1 - 1e-7 * np.random.default_rng(2).random(rows))
    found = made.decide(of, "agreement", at_least=0.98 - 3e-5)
    assert found.decision is decision
    assert ("297 units are too few to show a rare large loss" in found.reason) is (decision is OPEN)


def test_one_large_group_among_many_small_ones_asks_for_no_more_than_they_are_worth(made):
    """119 rows without a lost one do at .95: 400 pairs and one group of 25 are worth 306 of them."""
    cosines = 1 - 1e-7 * np.random.default_rng(2).random(825)
    owner = np.concatenate([np.arange(800) // 2, np.full(25, 400)])
    of = replace(made.flips(0, 0, 825, metric="mae"), agreement=cosines, groups=owner)
    assert made.decide(of, "agreement", at_least=0.95).decision is PASS
    few = replace(of, agreement=cosines[-325:], groups=owner[-325:])  # 151 groups, worth 86
    found = made.decide(few, "agreement", at_least=0.95)
    assert found.decision is OPEN
    assert "151 groups are too few to show a rare large loss" in found.reason


def test_advice_on_a_mean_cosine_counts_the_rows_that_rare_losses_need(made):
    """(.992 − .99) / 1.99 a row: ln 20 of it are some 3,400 rows."""
    cosines = 1 - np.abs(np.random.default_rng(2).normal(0, 0.01, size=400))
    of = replace(made.flips(0, 0, 400, metric="mae"), agreement=cosines)
    assert "about 3,000 more rows would decide" in made.decide(of, "agreement", at_least=0.99).advice


@pytest.mark.parametrize(
    ("gate", "params", "message"),
    [
        ("speedup", {"at_least": 0}, "at_least is 0, it must be a finite number above 0"),
        ("speedup", {"at_least": 2, "batch": 0}, "batch is 0"),
        ("latency", {}, "latency needs a limit"),
        ("latency", {"percentile": "p42", "at_most_ms": 1}, "must be one of p50, p90, p95, p99"),
        ("latency", {"p95": {"at_most_ms": -1}}, "p95.at_most_ms is -1"),
        ("latency", {"p95": {"at_most_ms": 1}, "batch": 0}, "batch is 0"),
        ("latency", {"p95": {"at_most": 1}}, "p95.at_most_ms: Field required"),
        ("size", {}, "size needs at_most_ratio, at_most_mib or both"),
        ("size", {"at_most_ratio": float("nan")}, "at_most_ratio is nan"),
        ("size", {"at_most_mib": -1}, "at_most_mib is -1"),
        ("memory", {"at_most_mib": -5}, "at_most_mib is -5"),
        ("placement", {"at_least_integer_share": 95}, "at_least_integer_share is 95"),
        ("placement", {"elsewhere": -1}, "elsewhere is -1"),
        ("floor", {"at_most": 0.5}, "floor of accuracy needs at_least, not at_most: higher is better"),
        ("floor", {"at_least": 91}, "at_least is 91, but accuracy lies between 0 and 1"),
        ("agreement", {"at_least": 1.0}, "at_least is 1, it must lie between 0 and 1"),
        ("facts", {"name": "cycles"}, "facts needs at_least, at_most or both"),
        ("facts", {"name": "cycles", "at_least": 2, "at_most": 1}, "nothing could pass"),
        ("arena", {"at_most_kib": 0}, "at_most_kib is 0"),
        ("npu_share", {"at_least": 95}, "it is a share above 0 and at most 1"),
        ("finite", {"please": True}, "has no key 'please'"),
        ("speedup", {"at_least": 2, "confidence": 95}, "confidence is 95, it must lie between 0.5 and 1"),
        ("latency", {"p95": {"at_most_ms": 1}, "confidence": 0.5}, "confidence is 0.5, it must lie"),
        ("floor", {"at_least": 0.5, "confidence": 0.5}, "confidence is 0.5, it must lie"),
        ("agreement", {"at_least": 0.5, "confidence": 0.5}, "confidence is 0.5, it must lie"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(made, gate, params, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        made.decide(made.flips(0, 0, 100), gate, **params)
