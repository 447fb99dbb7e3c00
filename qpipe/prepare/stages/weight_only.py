"""Stage `weight-only`: weights in blocks of 4 or 8 bits or as k-means codes, float activations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from qpipe.errors import ConfigError
from qpipe.plugins.stage import Draft, StageContext, StageType

if TYPE_CHECKING:
    import onnx_ir as ir

    from qpipe.records.quantization import QuantPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightOnlyParams:
    """Parameters of `weight-only`."""

    bits: Literal[2, 3, 4, 5, 6, 7, 8] = 4
    """Linear blocks have 4 or 8, NF4 has 4, a k-means codebook 2 to 8."""
    block_size: int = 32
    code: Literal["linear", "nf4", "kmeans"] = "linear"
    """Evenly spaced levels, NF4's, or a k-means codebook (smaller file alone: decoded at load)."""
    channels: int = 0
    """Output channels that share a k-means codebook; 0: all of a weight."""
    rounding: Literal["nearest", "gptq", "hqq"] = "nearest"
    accuracy_level: Literal[0, 1, 2, 3, 4] = 0
    """What the kernel computes in: 0 float32 … 4 int8 (onnxruntime's scale)."""
    keep_float: tuple[str, ...] = ()


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.graph import open_graph, save_graph

    assert isinstance(params, WeightOnlyParams)
    made = _codebooks if params.code == "kmeans" else _blocks
    rendered, plan = made(open_graph(draft.graph.path), draft, params, context)
    path = save_graph(rendered, context.workdir / "model.onnx")
    return replace(draft, plan=plan, qdq=context.onnx_file(path))


def _codebooks(
    model: ir.Model, _: Draft, params: WeightOnlyParams, context: StageContext
) -> tuple[ir.Model, QuantPlan]:
    from qpipe.quant.options import QuantOptions
    from qpipe.quant.storage.codebook import plan_codebooks, render_codebooks

    if params.rounding != "nearest":
        raise ConfigError(
            f"stage 'weight-only': rounding {params.rounding!r} is for linear codes, not for k-means codebooks"
        )
    options = QuantOptions(keep_float=params.keep_float)
    plan = plan_codebooks(model, context.scheme, bits=params.bits, channels=params.channels, options=options)
    return render_codebooks(model, plan), plan


def _blocks(
    model: ir.Model, draft: Draft, params: WeightOnlyParams, context: StageContext
) -> tuple[ir.Model, QuantPlan]:
    from qpipe.quant.calibration.statistics import load_statistics
    from qpipe.quant.fold.transposed import fold_transposes
    from qpipe.quant.options import QuantOptions
    from qpipe.quant.storage.weight_only import plan_weight_only, render_weight_only

    assert params.code != "kmeans"
    fold_transposes(model.graph)
    options = QuantOptions(keep_float=params.keep_float)
    plan = plan_weight_only(
        model, context.scheme, bits=params.bits, block_size=params.block_size, code=params.code, options=options
    )
    statistics = load_statistics(draft.statistics) if draft.statistics is not None else None
    rendered = render_weight_only(
        model, plan, rounding=params.rounding, statistics=statistics, accuracy_level=params.accuracy_level
    )
    return rendered, plan


WEIGHT_ONLY: StageType[object] = StageType(
    name="weight-only",
    summary="weights in blocks of 4 or 8 bits or as k-means codes, float activations",
    params=WeightOnlyParams,
    apply=_apply,
)
