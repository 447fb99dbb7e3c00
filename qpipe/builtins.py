"""What the core itself brings, as a plugin like any other. Targets come from files, see `targets/`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qpipe.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from qpipe.plugins.gate import GateType
    from qpipe.plugins.metric import Metric
    from qpipe.plugins.stage import StageType


@hookimpl
def qpipe_stages() -> Iterable[StageType[object]]:
    """The stages of a recipe that the core knows."""
    from qpipe.prepare import builtin_stages

    return builtin_stages()


@hookimpl
def qpipe_gates() -> Iterable[GateType[object]]:
    """The gates that the core decides."""
    from qpipe.gates import builtin_gates

    return builtin_gates()


@hookimpl
def qpipe_metrics() -> Iterable[Metric]:
    """The metrics that the core computes."""
    from qpipe.metrics import builtin_metrics

    return builtin_metrics()
