"""Stages `fp16` and `bf16`: the graph in half precision, with a list of operators that stay float32.

Where the target's scheme has no arithmetic in the type, the weights alone are stored in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpipe.plugins.stage import Draft, StageContext, StageType

if TYPE_CHECKING:
    from qpipe.quant.rendering.cast import Half


@dataclass(frozen=True, slots=True, kw_only=True)
class CastParams:
    """Parameters of `fp16` and `bf16`."""

    keep_float: tuple[str, ...] = ()
    """Operator types or node names that stay float32 with their weights; those without such kernels do anyway."""


def _cast(draft: Draft, params: object, context: StageContext, dtype: Half) -> Draft:
    from qpipe.quant.graph import open_graph, save_graph
    from qpipe.quant.rendering.cast import BLOCKED, cast_half
    from qpipe.quant.storage.stored import store_half

    assert isinstance(params, CastParams)
    model = open_graph(draft.graph.path)
    if dtype in context.scheme.float_types:
        model = cast_half(model, dtype, keep_float=(*BLOCKED, *params.keep_float))
    else:
        model = store_half(model, dtype, keep_float=params.keep_float)
    path = save_graph(model, context.workdir / "model.onnx")
    return replace(draft, graph=context.onnx_file(path), plan=None, qdq=None)


def _fp16(draft: Draft, params: object, context: StageContext) -> Draft:
    return _cast(draft, params, context, "float16")


def _bf16(draft: Draft, params: object, context: StageContext) -> Draft:
    return _cast(draft, params, context, "bfloat16")


FP16: StageType[object] = StageType(
    name="fp16",
    summary="compute in float16, or store weights so where the target has no such kernels",
    params=CastParams,
    apply=_fp16,
)
BF16: StageType[object] = StageType(
    name="bf16",
    summary="compute in bfloat16, or store weights so where the target has no such kernels",
    params=CastParams,
    apply=_bf16,
)
