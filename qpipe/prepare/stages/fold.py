"""Stage `fold`: exact rewrites of the float graph, checked numerically on calibration rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qpipe.plugins.stage import Draft, StageContext, StageType


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldParams:
    """Parameters of `fold`."""

    selections: bool = True
    """Turn strided Slice + channel Pad into 1×1 convolutions, which integer kernels run."""
    check: bool = True
    """Compare outputs before and after on the first calibration rows."""


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.check import check_rewrite
    from qpipe.quant.fold import fold
    from qpipe.quant.graph import open_graph, save_graph

    assert isinstance(params, FoldParams)
    model = open_graph(draft.graph.path)
    before = model.clone()
    done = fold(model, selections=params.selections)
    if params.check and any(rewrite.kind not in {"constant", "identity"} for rewrite in done):
        check_rewrite(before, model, context.calibration())
    return replace(draft, graph=context.onnx_file(save_graph(model, context.workdir / "model.onnx")))


FOLD: StageType[object] = StageType(
    name="fold",
    summary="fold constants, BatchNorm, Pad and channel-wise arithmetic into Conv and Gemm",
    params=FoldParams,
    apply=_apply,
    needs_calibration=True,
)
