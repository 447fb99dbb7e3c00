"""The JSON document of a run: its keys are a promise to scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from qpipe.records.evidence import BatchProfile, Evaluation, Percentile, Profile
from qpipe.records.fleet import Ended, Refusal
from qpipe.records.result import CellResult, Promoted, RunResult, SearchTrial
from qpipe.records.verdict import SliceVerdict, Verdict
from qpipe.report.shapes import (
    AttributionShape,
    BatchShape,
    CellShape,
    EngineShape,
    ErrorShape,
    FactShape,
    FleetShape,
    GateShape,
    MetricsShape,
    Numbers,
    PipelineShape,
    PlacementShape,
    ProfileShape,
    PromotedShape,
    RemarkShape,
    RunShape,
    SliceShape,
    StepShape,
    TrialShape,
)


def run_document(result: RunResult) -> RunShape:
    """A run as `--json` prints it. Numbers that are not finite become null."""
    return {
        "run_id": result.run_id,
        "mlflow_run_id": result.mlflow_run_id,
        "pipeline": result.pipeline,
        "exit_code": result.exit_code,
        "warnings": list(result.warnings),
        "cells": [cell_document(cell) for cell in result.cells],
        "promoted": [promoted_document(one) for one in result.promoted],
        "search": [_trial(one) for one in result.search],
    }


def fleet_document(ended: Sequence[Ended], exit_code: int) -> FleetShape:
    """Several pipelines as `--json` prints them, in the order of the command line."""
    return {"exit_code": exit_code, "pipelines": [_ended(one) for one in ended]}


def _ended(one: Ended) -> PipelineShape:
    run = run_document(one.end) if isinstance(one.end, RunResult) else None
    error = None if isinstance(one.end, RunResult) else refusal_document(one.end)
    return {"file": str(one.file), "exit_code": one.exit_code, "run": run, "error": error}


def refusal_document(refusal: Refusal) -> ErrorShape:
    """Why there is no result."""
    return {"message": refusal.message, "hint": refusal.hint, "code": refusal.code}


def run_json(result: RunResult) -> str:
    """The document as one line of JSON."""
    return json.dumps(run_document(result), allow_nan=False, ensure_ascii=False)


def cell_document(cell: CellResult) -> CellShape:
    """One cell."""
    return {
        "key": cell.key,
        "model": cell.model,
        "recipe": cell.recipe,
        "target": cell.target,
        "cached": cell.cached,
        "status": cell.status,
        "reason": cell.reason,
        "hint": cell.hint,
        "verdict": cell.decision,
        "gates": gates_document(cell.verdicts),
        "engine": _engine(cell),
        "metrics": _metrics(cell),
        "profile": _profile(cell),
        "placement": _placement(cell),
        "facts": _facts(cell),
        "attribution": _attribution(cell),
        "lint": _lint(cell),
    }


def gates_document(verdicts: tuple[Verdict, ...]) -> dict[str, GateShape]:
    """Gates by name, with every number."""
    return {verdict.gate: _gate(verdict) for verdict in verdicts}


def _trial(one: SearchTrial) -> TrialShape:
    return {
        "model": one.model,
        "target": one.target,
        "recipe": one.recipe,
        "chosen": one.chosen,
        "reason": one.reason,
        "value": finite(one.value),
        "reference": finite(one.reference),
        "ratio": finite(one.ratio),
        "ratio_high": finite(one.ratio_high),
        "sqnr_db": finite(one.sqnr_db),
        "size_bytes": one.size_bytes,
        "tried": one.tried,
    }


def promoted_document(one: Promoted) -> PromotedShape:
    """One promotion."""
    return {"model": one.model, "version": one.version, "alias": one.alias, "engine": one.engine, "note": one.note}


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None


def _gate(verdict: Verdict) -> GateShape:
    return {
        "verdict": verdict.decision,
        "observed": finite(verdict.observed),
        "low": finite(verdict.low),
        "high": finite(verdict.high),
        "limit": finite(verdict.limit),
        "n": verdict.n,
        "alpha": finite(verdict.alpha),
        "kind": verdict.kind,
        "reason": verdict.reason,
        "advice": verdict.advice,
        "required": verdict.required,
        "notes": list(verdict.notes),
        "slices": [_slice(part) for part in verdict.slices],
    }


def _slice(part: SliceVerdict) -> SliceShape:
    return {
        "name": part.name,
        "verdict": part.decision,
        "observed": finite(part.observed),
        "low": finite(part.low),
        "high": finite(part.high),
        "n": part.n,
        "screen": part.screen,
    }


def _engine(cell: CellResult) -> EngineShape | None:
    if cell.engine is None:
        return None
    return {
        "digest": cell.engine.digest,
        "path": str(cell.engine.path),
        "files": [file.name for file in cell.engine.files],
        "size_bytes": cell.engine.size_bytes,
        "notes": list(cell.engine.notes),
    }


def _metrics(cell: CellResult) -> MetricsShape:
    """`quantized` is the ONNX graph before the toolchain, known where the loss was attributed."""
    metrics: MetricsShape = {"reference": {}, "quantized": {}, "engine": {}}
    evidence = cell.evidence
    if evidence is None:
        return metrics
    if isinstance(evidence.reference, Evaluation):
        metrics["reference"] = {evidence.reference.metric: finite(evidence.reference.value)}
    if isinstance(evidence.evaluation, Evaluation):
        metrics["engine"] = _evaluation(evidence.evaluation)
        step = next((value for name, value in cell.attribution if name.startswith("quantized")), None)
        if step is not None:
            metrics["quantized"] = {evidence.evaluation.metric: finite(step)}
    return metrics


def _evaluation(evaluation: Evaluation) -> Numbers:
    values: Numbers = {evaluation.metric: finite(evaluation.value)}
    if evaluation.sqnr_db is not None:
        values["sqnr_db"] = finite(evaluation.sqnr_db)
    if evaluation.cosine is not None:
        values["cosine"] = finite(evaluation.cosine)
    return values


def _profile(cell: CellResult) -> ProfileShape | None:
    profile = cell.evidence.profile if cell.evidence else None
    if not isinstance(profile, Profile):
        return None
    return {
        "kind": profile.kind,
        "batch": {str(batch.batch): _batch(batch) for batch in profile.batches},
        "peak_rss_bytes": max(profile.peak_rss_bytes, default=None),
    }


def _batch(batch: BatchProfile) -> BatchShape:
    ratio = batch.ratio
    return {
        "latency_ms": _percentiles(batch.latency_ms),
        "baseline_ms": _percentiles(batch.baseline_ms),
        "ratio": {"median": ratio.median, "low": ratio.low, "high": ratio.high} if ratio else None,
    }


def _percentiles(percentiles: tuple[tuple[str, Percentile], ...]) -> Numbers:
    return {name: finite(percentile.value) for name, percentile in percentiles}


def _placement(cell: CellResult) -> PlacementShape | None:
    placement = cell.evidence.placement if cell.evidence else None
    placement = placement or (cell.engine.placement if cell.engine else None)
    if placement is None:
        return None
    return {
        "integer": placement.integer,
        "float": placement.float,
        "elsewhere": placement.elsewhere,
        "notes": list(placement.notes),
    }


def _attribution(cell: CellResult) -> AttributionShape | None:
    found = cell.evidence.attribution if cell.evidence else None
    if found is None:
        return None
    steps: list[StepShape] = [
        {"name": step.name, "metric": finite(step.metric), "sqnr_db": finite(step.sqnr_db), "note": step.note}
        for step in found.steps
    ]
    return {"role": found.role, "rows": found.rows, "steps": steps}


def _lint(cell: CellResult) -> list[RemarkShape]:
    found = cell.evidence.remarks if cell.evidence else ()
    return [{"kind": one.kind, "subject": one.subject, "message": one.message} for one in found]


def _facts(cell: CellResult) -> dict[str, FactShape]:
    facts = cell.evidence.facts if cell.evidence else cell.engine.facts if cell.engine else ()
    return {fact.name: {"value": finite(fact.value), "unit": fact.unit, "kind": fact.kind} for fact in facts}
