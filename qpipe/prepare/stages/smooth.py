"""Stage `smooth`: move outlier channels of MatMul inputs into the weights (SmoothQuant)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qpipe.errors import ConfigError
from qpipe.plugins.stage import Draft, StageContext, StageType


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothParams:
    """Parameters of `smooth`."""

    alpha: float = 0.7
    """How much of the difficulty moves to the weights, 0 to 1."""
    outliers: float = 4.0
    """Smooth tensors whose largest channel is at least this many times the median channel."""


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.calibration.statistics import load_statistics, save_statistics
    from qpipe.quant.corrections.smooth import smooth
    from qpipe.quant.graph import open_graph, save_graph

    assert isinstance(params, SmoothParams)
    if draft.statistics is None:
        raise ConfigError("stage 'smooth' has no statistics", hint="put `calibrate` before it")
    model = open_graph(draft.graph.path)
    before = load_statistics(draft.statistics)
    done, statistics = smooth(model, before, context.scheme, alpha=params.alpha, outliers=params.outliers)
    if not done:
        return draft
    folder = context.workdir / "statistics"
    folder.mkdir()
    save_statistics(statistics, folder)
    graph = context.onnx_file(save_graph(model, context.workdir / "model.onnx"))
    return replace(draft, graph=graph, statistics=folder, plan=None, qdq=None)


SMOOTH: StageType[object] = StageType(
    name="smooth",
    summary="move outlier channels of MatMul inputs into the weights (SmoothQuant)",
    params=SmoothParams,
    apply=_apply,
    needs_calibration=True,
)
