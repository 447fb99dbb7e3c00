from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from qpipe.config import first_party_targets
from qpipe.errors import ConfigError, TargetError, nearest
from qpipe.plugins.gate import GateType
from qpipe.plugins.metric import Metric
from qpipe.plugins.stage import StageType
from qpipe.records.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    margin: float
    confidence: float = 0.95
    metric: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    by: str
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    at_most_ratio: float | None = None
    at_most_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    at_least: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    node: str
    bits: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    range: Literal["minmax", "mse", "percentile"] = "minmax"
    skip: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    bits: int = 8


def check_margin(params, metric):
    span = metric.bounds[1] - metric.bounds[0]
    inside = 0 < params.margin < span
    return None if inside else f"margin {params.margin} is outside the range of {metric.name} (0 to {span})"


def gate(name, params, check=None):
    return GateType(name=name, summary=f"the gate {name}", params=params, decide=None, check=check)


def stage(name, params=Nothing, *, calibrated=False):
    return StageType(name=name, summary=name, params=params, apply=None, needs_calibration=calibrated)


def metric(name):
    return Metric(name=name, summary=name, kind="binary", measure=None, aggregate=None)


@dataclass(frozen=True, kw_only=True)
class Named:
    """The registry as far as the configuration uses it."""

    targets: Mapping[str, Target]
    gates: Mapping[str, GateType]
    stages: Mapping[str, StageType]
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def target(self, name):
        return self._get("target", name, self.targets, TargetError)

    def gate(self, name):
        return self._get("gate", name, self.gates, ConfigError)

    def stage(self, name):
        return self._get("stage", name, self.stages, ConfigError)

    def metric(self, name):
        return self._get("metric", name, self.metrics, ConfigError)

    def _get(self, kind, name, known, error):
        if name not in known:
            raise error(f"unknown {kind} {name!r}{nearest(name, known)}", hint=f"{kind}s: {', '.join(known)}")
        return known[name]


def by_name(*things):
    return {thing.name: thing for thing in things}


@pytest.fixture(scope="session")
def names():
    return Named(
        targets=by_name(*first_party_targets()),
        gates=by_name(
            gate("quality", Quality, check_margin),
            gate("slices", Slices, check_margin),
            gate("size", Size),
            gate("speedup", Speedup),
            gate("finite", Nothing),
        ),
        stages=by_name(
            stage("fold"), stage("calibrate", calibrated=True), stage("quantize", Quantize, calibrated=True)
        ),
        metrics=by_name(metric("accuracy"), metric("auc"), metric("macro-f1"), metric("spearman"), metric("mae")),
    )
