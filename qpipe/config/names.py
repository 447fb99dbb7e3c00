"""What the configuration asks of the registry of plugins: things by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from qpipe.plugins.gate import GateType
from qpipe.plugins.metric import Metric
from qpipe.plugins.stage import StageType
from qpipe.records.target import Target


class Names(Protocol):
    """The registry, as far as a pipeline file needs it. Each method raises QpipeError with the nearest name."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """All metrics by name."""
        ...

    @property
    def targets(self) -> Mapping[str, Target]:
        """All targets by name."""
        ...

    def target(self, name: str) -> Target:
        """The target of that name."""
        ...

    def gate(self, name: str) -> GateType[object]:
        """The gate type of that name."""
        ...

    def stage(self, name: str) -> StageType[object]:
        """The stage of that name."""
        ...

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        ...
