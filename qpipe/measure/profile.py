"""From raw samples to a profile: percentiles and ratios to the float engine.

Source: Georges, Buytaert, Eeckhout (2007), Statistically Rigorous Java Performance Evaluation, section 3.2: the
process is the unit of an interval; David and Nagaraja (2003), Order Statistics, section 7.1: bounds of a quantile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from qpipe.measure.drift import find_drift
from qpipe.measure.samples import Clock, Floats, Samples
from qpipe.records.engine import Kind
from qpipe.records.evidence import BatchProfile, Percentile, Profile, Ratio

PERCENTILES = (("p50", 0.50), ("p90", 0.90), ("p95", 0.95), ("p99", 0.99))

Bounds = Callable[[Floats, float], tuple[float, float | None, float | None]]
"""(samples [processes, rounds] in ms, q) → value, one-sided lower and upper bound."""


def order_statistics(samples: Floats, q: float, confidence: float = 0.95) -> tuple[float, float | None, float | None]:
    """The q-quantile with one-sided bounds by order statistics, for independent samples.

    With n samples the bounds are those of rank l, the largest with P(Bin(n, q) < l) ≤ 1 − confidence, and u, the
    smallest with P(Bin(n, q) < u) ≥ confidence; None where there is no such rank (p99 needs 299 samples).
    """
    from scipy.special import bdtr  # not scipy.stats: that takes a second to import, when everybody waits

    ordered = np.sort(samples, axis=None)
    count = len(ordered)
    below = bdtr(np.arange(count), count, q)  # P(Bin < rank), rank 1 … n
    low, high = np.flatnonzero(below <= 1 - confidence), np.flatnonzero(below >= confidence)
    return (
        float(np.quantile(ordered, q)),
        float(ordered[low[-1]]) if len(low) else None,
        float(ordered[high[0]]) if len(high) else None,
    )


def summarize(
    samples: Samples,
    *,
    baseline: str,
    threads: int,
    kind: Kind = "measured",
    peak_rss_bytes: Mapping[str, tuple[int, ...]] | None = None,
    conditions: tuple[tuple[str, str], ...] = (),
    voided: int = 0,
    bounds: Bounds = order_statistics,
) -> dict[str, Profile]:
    """The profile of every engine, by name.

    Args:
        samples: of all processes (`merge_samples`).
        baseline: name of the float engine. Its own profile has no ratio.
        threads: of the target.
        kind: how the sessions ran.
        peak_rss_bytes: per engine, one number per process of its own (`peak_memory`).
        conditions: of the host (`host.conditions`).
        voided: how often the run was thrown away before because of drift.
        bounds: of percentiles; the default takes samples as independent.

    Raises:
        EngineError: the baseline was not timed.
    """
    drift = {name: find_drift(samples, name, baseline) for name in map(str, samples.engines)}
    rounds = min(samples.matrix_ms(baseline, size).shape[1] for size in samples.batches)
    return {
        name: Profile(
            kind=kind,
            batches=tuple(_batch(samples, name, baseline, size, bounds) for size in samples.batches),
            peak_rss_bytes=(peak_rss_bytes or {}).get(name, ()),
            load_ms=float(np.median(samples.load_ms[:, samples.index(name)])),
            threads=threads,
            processes=samples.processes,
            rounds=rounds,
            conditions=conditions,
            voided=voided,
            drifted=bool(drift[name]),
            drift=drift[name],
            outputs_match=bool(samples.outputs_match[:, samples.index(name)].all()),
        )
        for name in map(str, samples.engines)
    }


def _batch(samples: Samples, name: str, baseline: str, size: int, bounds: Bounds) -> BatchProfile:
    own = name == baseline
    logs = () if own else log_ratios(samples, name, baseline, size)
    return BatchProfile(
        batch=size,
        latency_ms=_percentiles(samples.matrix_ms(name, size), bounds),
        baseline_ms=_percentiles(samples.matrix_ms(baseline, size), bounds),
        ratio=ratio(logs),
        cpu_ratio=None
        if own or not _has_cpu_time(samples)
        else ratio(log_ratios(samples, name, baseline, size, "cpu")),
        log_ratios=logs,
        samples=samples.matrix_ms(name, size).size,
    )


def _has_cpu_time(samples: Samples) -> bool:
    """A device may have none to tell, or a clock of long steps."""
    return bool((samples.cpu_ns > 0).all())


def _percentiles(times_ms: Floats, bounds: Bounds) -> tuple[tuple[str, Percentile], ...]:
    found = []
    for name, q in PERCENTILES:
        value, low, high = bounds(times_ms, q)
        found.append((name, Percentile(value=value, low=low, high=high)))
    return tuple(found)


def log_ratios(samples: Samples, name: str, baseline: str, size: int, clock: Clock = "wall") -> tuple[float, ...]:
    """log(median engine / median baseline) of each process."""
    return tuple(
        math.log(
            float(np.median(samples.times_ms(name, size, process, clock)))
            / float(np.median(samples.times_ms(baseline, size, process, clock)))
        )
        for process in range(samples.processes)
    )


def ratio(logs: tuple[float, ...]) -> Ratio | None:
    """Geometric mean over processes with a two-sided 90 % interval (Student's t); None below two processes."""
    from scipy.special import stdtrit

    if len(logs) < 2:
        return None
    mean = float(np.mean(logs))
    half = float(stdtrit(len(logs) - 1, 0.95)) * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    return Ratio(median=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half))
