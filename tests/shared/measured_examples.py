"""What a measurement leaves behind, as an example: for the tests of whatever prints, logs or judges it."""

from dataclasses import replace

from qpipe.records.evidence import BatchProfile, Evaluation, Evidence, NotMeasured, Percentile, Profile, Ratio
from qpipe.records.verdict import Decision, Verdict


def evaluation(value=0.9, **changes):
    base = Evaluation(
        kind="measured",
        role="gate",
        data_digest="cd" * 32,
        metric="accuracy",
        rows=500,
        units=500,
        value=value,
        nonfinite_rows=0,
        sqnr_db=31.5,
        cosine=0.9991,
        outputs_digest="ef" * 32,
        seconds=0.5,
    )
    return replace(base, **changes)


def evidence(**changes):
    """Of an engine that nobody timed."""
    base = Evidence(
        digest="ee" * 32,
        model_digest="bb" * 32,
        engine_digest="aa" * 32,
        evaluation=evaluation(),
        reference=evaluation(),
        profile=NotMeasured(reason="no gate asks for it"),
        engine_size_bytes=30_000,
        baseline_size_bytes=100_000,
        placement=None,
        facts=(),
    )
    return replace(base, **changes)


def percentiles(scale):
    return tuple((f"p{q}", Percentile(value=scale * q / 100, low=scale * 0.4, high=None)) for q in (50, 90, 95, 99))


def batch(size):
    """Twice as fast as the float engine: p50 is half a millisecond per row."""
    return BatchProfile(
        batch=size,
        latency_ms=percentiles(size),
        baseline_ms=percentiles(2 * size),
        ratio=Ratio(median=0.5, low=0.48, high=0.52),
        cpu_ratio=None,
        log_ratios=(-0.69, -0.7, -0.68),
        samples=200,
    )


def profile(*sizes, **changes):
    base = Profile(
        kind="measured",
        batches=tuple(batch(size) for size in sizes),
        peak_rss_bytes=(100_000_000, 101_000_000),
        load_ms=12.0,
        threads=1,
        processes=3,
        rounds=40,
        conditions=(("cpu", "a <fast> CPU"),),
        voided=0,
        drifted=False,
        outputs_match=True,
    )
    return replace(base, **changes)


def verdict(**changes):
    """Of the quality gate."""
    base = Verdict(
        gate="quality",
        decision=Decision.PASS,
        reason="lower bound −0.004 is above −0.01",
        observed=-0.002,
        low=-0.004,
        high=0.001,
        limit=-0.01,
        n=500,
        alpha=0.05,
        kind="measured",
    )
    return replace(base, **changes)
