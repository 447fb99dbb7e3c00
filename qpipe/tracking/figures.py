"""From a cell's result to the figures that MLflow shows: finite, named within MLflow's alphabet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from qpipe.records.evidence import BatchProfile, Evaluation, Evidence, Profile
from qpipe.records.result import CellResult
from qpipe.records.verdict import Verdict

_FORBIDDEN = re.compile(r"[^\w\-. :/]", re.ASCII)
"""MLflow metric keys hold alphanumerics and `_ - . space : /` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What can be logged as a metric, and what cannot because it is not a number."""

    finite: tuple[tuple[str, float], ...]
    refused: tuple[tuple[str, float], ...]
    """NaN and infinite values: MLflow would store infinity as 1.8e308."""


def figures(result: CellResult) -> Figures:
    """All figures of a cell. A later one never replaces an earlier one of the same name."""
    found: dict[str, float] = {}
    for name, value in _all(result):
        found.setdefault(_FORBIDDEN.sub("_", name)[:250], value)
    return Figures(
        finite=tuple((name, value) for name, value in found.items() if math.isfinite(value)),
        refused=tuple((name, value) for name, value in found.items() if not math.isfinite(value)),
    )


def _all(result: CellResult) -> Iterator[tuple[str, float]]:
    yield "seconds", result.seconds
    if result.evidence is not None:
        yield from _evidence(result.evidence)
    for verdict in result.verdicts:
        yield from _verdict(verdict)
    for step, value in result.attribution:
        yield f"attribution/{step}", value


def _evidence(evidence: Evidence) -> Iterator[tuple[str, float]]:
    if isinstance(evidence.evaluation, Evaluation):
        yield from _evaluation(evidence.evaluation)
    if isinstance(evidence.reference, Evaluation):
        yield f"reference/{evidence.reference.metric}", _or_nan(evidence.reference.value)
    yield "size_bytes", float(evidence.engine_size_bytes)
    if evidence.size_ratio is not None:
        yield "size_ratio", evidence.size_ratio
    if evidence.placement is not None:
        yield "placement/integer", float(evidence.placement.integer)
        yield "placement/float", float(evidence.placement.float)
        yield "placement/elsewhere", float(evidence.placement.elsewhere)
    for step in evidence.attribution.steps if evidence.attribution is not None else ():
        if step.sqnr_db is not None:
            yield f"attribution/{step.name}_sqnr_db", step.sqnr_db
    for fact in evidence.facts:
        yield f"facts/{fact.name}", fact.value
    if isinstance(evidence.profile, Profile):
        yield from _profile(evidence.profile)


def _or_nan(value: float | None) -> float:
    """An undefined metric is named among what is not logged, rather than passed over."""
    return math.nan if value is None else value


def _evaluation(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    yield evaluation.metric, _or_nan(evaluation.value)
    yield "rows", float(evaluation.rows)
    yield "nonfinite_rows", float(evaluation.nonfinite_rows)
    if evaluation.sqnr_db is not None:
        yield "sqnr_db", evaluation.sqnr_db
    if evaluation.cosine is not None:
        yield "cosine", evaluation.cosine


def _profile(profile: Profile) -> Iterator[tuple[str, float]]:
    yield "load_ms", profile.load_ms
    if profile.peak_rss_bytes:
        yield "peak_rss_bytes", float(max(profile.peak_rss_bytes))
    for batch in profile.batches:
        yield from _batch(batch)


def _batch(batch: BatchProfile) -> Iterator[tuple[str, float]]:
    place = f"batch_{batch.batch}"
    for name, percentile in batch.latency_ms:
        yield f"{place}/latency_{name}_ms", percentile.value
    for name, percentile in batch.baseline_ms:
        yield f"{place}/float_{name}_ms", percentile.value
    if batch.ratio is not None:
        yield f"{place}/ratio", batch.ratio.median
        yield f"{place}/ratio_low", batch.ratio.low
        yield f"{place}/ratio_high", batch.ratio.high


def _verdict(verdict: Verdict) -> Iterator[tuple[str, float]]:
    values = (("observed", verdict.observed), ("low", verdict.low), ("high", verdict.high), ("limit", verdict.limit))
    for name, value in values:
        if value is not None:
            yield f"gates/{verdict.gate}/{name}", value
