"""Stage `equalize`: cross-layer equalization of the float graph. No built-in recipe has it; a search may try it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qpipe.errors import ConfigError, QuantizationError
from qpipe.plugins.stage import Draft, StageContext, StageType
from qpipe.records.quantization import RangeMethod

if TYPE_CHECKING:
    from qpipe.quant.numbers import F64


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualizeParams:
    """Parameters of `equalize`."""

    by: Literal["weights", "activations"] = "weights"
    """Make the weights on both sides alike, or the activation between them and the weights that read it."""
    ranges: RangeMethod = "minmax"
    """How the range of each channel of an activation is found; all but `minmax` need `calibrate` with `channels`."""
    check: bool = True
    """Compare outputs before and after on the first calibration rows."""
    required: bool = False
    """An error where no two layers can be evened out, so that a search does not judge the same engine twice."""


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.check import check_rewrite
    from qpipe.quant.corrections.equalize import equalize
    from qpipe.quant.graph import open_graph, save_graph

    assert isinstance(params, EqualizeParams)
    model = open_graph(draft.graph.path)
    done = equalize(model, _magnitudes(draft.statistics, params) if params.by == "activations" else None)
    if not done and params.required:
        raise QuantizationError(
            "no two layers of this graph can be evened out: nothing but Relu and pooling may stand between them",
            hint="leave `equalize` out of the recipe",
        )
    if not done:
        return draft
    if params.check:
        check_rewrite(open_graph(draft.graph.path), model, context.calibration(), stage="equalize")
    graph = context.onnx_file(save_graph(model, context.workdir / "model.onnx"))
    return replace(draft, graph=graph, statistics=None, plan=None, qdq=None)


def _magnitudes(statistics: Path | None, params: EqualizeParams) -> dict[str, F64]:
    """Tensor → largest magnitude per channel inside its range, [C], for all tensors with channels."""
    import numpy as np

    from qpipe.quant.calibration.statistics import load_statistics
    from qpipe.quant.ranges import RangeRule, find_channel_ranges

    if statistics is None:
        raise ConfigError(
            "stage 'equalize' by activations has no statistics", hint="put `calibrate` before it, and again behind it"
        )
    found = {}
    for item in load_statistics(statistics):
        if item.axis is not None and item.finite:
            low, high = find_channel_ranges(item, RangeRule(method=params.ranges))
            found[item.tensor] = np.maximum(-low, high)
    return found


EQUALIZE: StageType[object] = StageType(
    name="equalize",
    summary="even out the channels of neighbouring layers (cross-layer equalization)",
    params=EqualizeParams,
    apply=_apply,
    needs_calibration=True,
)
