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
    """Backends that this plugin brings: objects with `check`, `scheme`, `build` and `open`.

    ```python
    from qpipe.testing.fake import FakeBackend

    class MyBackend(FakeBackend):
        name = "my-runtime"

    @hookimpl
    def qpipe_backends():
        return [MyBackend()]
    ```
    """
    raise NotImplementedError


@hookspec
def qpipe_targets() -> Iterable[Target]:
    """Hardware targets that this plugin brings; files in `targets/` and beside a pipeline need no hook.

    ```python
    from qpipe.records.target import Target

    @hookimpl
    def qpipe_targets():
        yield Target(name="my-board", backend="onnxruntime", arch="aarch64", threads=4)
    ```
    """
    raise NotImplementedError


@hookspec
def qpipe_stages() -> Iterable[StageType[object]]:
    """Stages that recipes may name.

    ```python
    from dataclasses import dataclass
    from qpipe.plugins.stage import StageType

    @dataclass(frozen=True)
    class NoParams:
        pass

    @hookimpl
    def qpipe_stages():
        yield StageType(name="nothing", summary="", params=NoParams, apply=lambda draft, params, context: draft)
    ```
    """
    raise NotImplementedError


@hookspec
def qpipe_gates() -> Iterable[GateType[object]]:
    """Gate types that pipelines may name.

    ```python
    from dataclasses import dataclass
    from qpipe.plugins.gate import GateType
    from qpipe.records.verdict import Decision, Verdict

    @dataclass(frozen=True)
    class Bytes:
        at_most: int

    def decide(outcomes, params, alpha):
        found = outcomes.evidence.engine_size_bytes
        decision = Decision.PASS if found <= params.at_most else Decision.FAIL
        return Verdict(gate="bytes", decision=decision, reason=f"{found} bytes", observed=found, limit=params.at_most)

    @hookimpl
    def qpipe_gates():
        yield GateType(name="bytes", summary="size of the engine", params=Bytes, decide=decide)
    ```
    """
    raise NotImplementedError


@hookspec
def qpipe_metrics() -> Iterable[Metric]:
    """Metrics that pipelines may name.

    ```python
    import numpy as np
    from qpipe.plugins.metric import Metric, Units

    def mean_output(rows):
        values = next(iter(rows.outputs.values())).mean(axis=-1)
        return Units(values=values[:, None].astype(float), rows=np.arange(len(values)))

    @hookimpl
    def qpipe_metrics():
        yield Metric(name="mean-output", summary="", kind="score", measure=mean_output, aggregate=np.mean)
    ```
    """
    raise NotImplementedError


@hookspec
def qpipe_cell_finished(result: CellResult) -> None:
    """A cell is finished and judged. A notification: what it returns or raises changes nothing but a warning.

    ```python
    @hookimpl
    def qpipe_cell_finished(result):
        print(f"{result.label}: {result.decision}")
    ```
    """
