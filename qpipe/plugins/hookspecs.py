"""The six hooks of a qpipe plugin. `docs/plugins/` has a page with a runnable example for each."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from qpipe.plugins.backend import Backend
from qpipe.plugins.gate import GateType
from qpipe.plugins.metric import Metric
from qpipe.plugins.stage import StageType
from qpipe.records.result import CellResult
from qpipe.records.target import Target

GROUP = "qpipe"
"""Entry-point group and pluggy project name."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def qpipe_backends() -> Iterable[Backend]:
    """Backends that this plugin brings."""
    raise NotImplementedError


@hookspec
def qpipe_targets() -> Iterable[Target]:
    """Hardware targets that this plugin brings; files in `targets/` and beside a pipeline need no hook."""
    raise NotImplementedError


@hookspec
def qpipe_stages() -> Iterable[StageType[object]]:
    """Stages that recipes may name."""
    raise NotImplementedError


@hookspec
def qpipe_gates() -> Iterable[GateType[object]]:
    """Gate types that pipelines may name."""
    raise NotImplementedError


@hookspec
def qpipe_metrics() -> Iterable[Metric]:
    """Metrics that pipelines may name."""
    raise NotImplementedError


@hookspec
def qpipe_cell_finished(result: CellResult) -> None:
    """A cell is finished and judged. A notification: what it returns or raises changes nothing but a warning."""
