"""Stage `weight-only`: weights in blocks of 4 or 8 bits, float activations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from qpipe.plugins.stage import Draft, StageContext, StageType


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOnlyParams:
    """Parameters of `weight-only`."""

    bits: Literal[4, 8] = 4
    block_size: int = 32
    code: Literal["linear", "nf4"] = "linear"
    """Evenly spaced levels, or NF4's (4 bits alone)."""
    rounding: Literal["nearest", "gptq"] = "nearest"
    accuracy_level: Literal[0, 1, 2, 3, 4] = 0
    """What the kernel computes in: 0 float32 … 4 int8 (onnxruntime's scale)."""
    keep_float: tuple[str, ...] = ()


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.graph import open_graph, save_graph
    from qpipe.quant.options import QuantOptions
    from qpipe.quant.statistics import load_statistics
    from qpipe.quant.weight_only import plan_weight_only, render_weight_only

    assert isinstance(params, WeightOnlyParams)
    model = open_graph(draft.graph.path)
    options = QuantOptions(keep_float=params.keep_float)
    plan = plan_weight_only(
        model, context.scheme, bits=params.bits, block_size=params.block_size, code=params.code, options=options
    )
    statistics = load_statistics(draft.statistics) if draft.statistics is not None else None
    rendered = render_weight_only(
        model, plan, rounding=params.rounding, statistics=statistics, accuracy_level=params.accuracy_level
    )
    path = save_graph(rendered, context.workdir / "model.onnx")
    return replace(draft, plan=plan, qdq=context.onnx_file(path))


WEIGHT_ONLY: StageType[object] = StageType(
    name="weight-only",
    summary="weights in blocks of 4 or 8 bits, float activations",
    params=WeightOnlyParams,
    apply=_apply,
)
