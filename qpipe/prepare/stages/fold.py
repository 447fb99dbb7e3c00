"""Stage `fold`: exact rewrites of the float graph, checked numerically on calibration rows, once for all recipes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from qpipe.plugins.stage import Draft, StageContext, StageType

FILE = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldParams:
    """Parameters of `fold`."""

    selections: bool = True
    """Turn strided Slice + channel Pad into 1×1 convolutions, which integer kernels run."""
    check: bool = True
    """Compare outputs before and after on the first calibration rows."""


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.fold import VERSION

    assert isinstance(params, FoldParams)

    def make(folder: Path) -> None:
        _fold(draft.graph.path, params, context, folder / FILE)

    text = f"fold {VERSION} {draft.graph.digest} {params}"
    folder = context.cached(hashlib.sha256(text.encode()).hexdigest(), make)
    return replace(draft, graph=context.onnx_file(folder / FILE))


def _fold(source: Path, params: FoldParams, context: StageContext, target: Path) -> None:
    from qpipe.quant.check import check_rewrite
    from qpipe.quant.fold import fold
    from qpipe.quant.graph import open_graph, save_graph

    model = open_graph(source)
    before = model.clone()
    changed = fold(model, selections=params.selections)
    if params.check and changed:
        check_rewrite(before, model, context.calibration())
    save_graph(model, target)


FOLD: StageType[object] = StageType(
    name="fold",
    summary="fold constants, BatchNorm, Pad and channel-wise arithmetic into Conv and Gemm",
    params=FoldParams,
    apply=_apply,
    needs_calibration=True,
)
