"""Outcomes of made-up cells: what a gate sees, with everything at rest but what a test sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import measured_examples as examples
import numpy as np
import pytest

from qpipe.gates import builtin_gates, decide_gate
from qpipe.metrics import builtin_metrics
from qpipe.plugins.gate import Alpha, Outcomes
from qpipe.records.evidence import Evaluation, Evidence, Profile
from qpipe.records.verdict import GateSpec, Verdict

ALPHA = Alpha()
GATES = {gate.name: gate for gate in builtin_gates()}
METRICS = {metric.name: metric for metric in builtin_metrics()}


def evaluation(rows: int, **changes: object) -> Evaluation:
    return examples.evaluation(**{"rows": rows, "units": rows, **changes})


def evidence(rows: int = 100, **changes: object) -> Evidence:
    return examples.evidence(**{"evaluation": evaluation(rows), "reference": evaluation(rows), **changes})


def profile(**changes: object) -> Profile:
    """Of no batch size: a test that needs some brings them."""
    return examples.profile(**{"peak_rss_bytes": (), "conditions": (), **changes})


def outcomes(
    engine: np.ndarray,
    reference: np.ndarray,
    *,
    metric: str = "accuracy",
    agreement: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    slices: Mapping[str, np.ndarray] | None = None,
    labelled: bool = True,
    **changes: object,
) -> Outcomes:
    rows = len(engine)
    engine, reference = (
        np.asarray(units, dtype=np.float64).reshape(rows, -1 if rows else 1) for units in (engine, reference)
    )
    base = Outcomes(
        evidence=evidence(rows),
        metric=METRICS[metric],
        engine=engine if labelled else np.empty((rows, 0)),
        reference=reference if labelled else np.empty((rows, 0)),
        groups=groups,
        slices={name: np.asarray(found).astype(np.str_) for name, found in (slices or {}).items()},
        agreement=(engine == reference).all(axis=1).astype(np.float64) if agreement is None else agreement,
        labelled=labelled,
        seed=7,
        accept=("measured",),
    )
    return replace(base, **changes)


def flips(gains: int, losses: int, rows: int, **changes: object) -> Outcomes:
    """Paired 0/1 outcomes with so many gains and losses; of the others two of three are right."""
    engine = (np.arange(rows) % 3 > 0).astype(np.float64)
    reference = engine.copy()
    engine[:gains], reference[:gains] = 1, 0
    engine[gains : gains + losses], reference[gains : gains + losses] = 0, 1
    return outcomes(engine, reference, **changes)


def decide(of: Outcomes, gate: str, alpha: Alpha = ALPHA, accept: tuple[str, ...] = ("measured",), **params) -> Verdict:
    """The verdict of one gate, through everything that a pipeline goes through."""
    spec = GateSpec(name=gate, type=gate, params=params, accept=accept)
    return decide_gate(of, spec, GATES, alpha)


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """Makers of everything that a gate sees."""
    return SimpleNamespace(
        alpha=ALPHA,
        gates=GATES,
        metrics=METRICS,
        evaluation=evaluation,
        evidence=evidence,
        profile=profile,
        outcomes=outcomes,
        flips=flips,
        decide=decide,
    )
