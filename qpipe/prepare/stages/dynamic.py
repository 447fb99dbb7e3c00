"""Stage `dynamic`: activations are quantized as they come; needs no calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from qpipe.plugins.stage import Draft, StageContext, StageType


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicParams:
    """Parameters of `dynamic`."""

    weights: Literal["max", "mse"] = "max"
    keep_float: tuple[str, ...] = ()
    """Patterns over node names, or `op:TYPE`, that stay float."""


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.fold.transposed import fold_transposes
    from qpipe.quant.graph import open_graph, save_graph
    from qpipe.quant.options import QuantOptions
    from qpipe.quant.rendering.dynamic import plan_dynamic, render_dynamic

    assert isinstance(params, DynamicParams)
    model = open_graph(draft.graph.path)
    fold_transposes(model.graph)
    options = QuantOptions(weights=params.weights, keep_float=params.keep_float)
    plan = plan_dynamic(model, context.scheme, options)
    path = save_graph(render_dynamic(model, plan), context.workdir / "model.onnx")
    return replace(draft, plan=plan, qdq=context.onnx_file(path))


DYNAMIC: StageType[object] = StageType(
    name="dynamic",
    summary="quantize activations as they come, weights per channel",
    params=DynamicParams,
    apply=_apply,
    operators=lambda scheme: scheme.dynamic_ops,
)
