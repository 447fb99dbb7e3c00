"""Stages `quantize` (statistics and scheme → plan) and `correct-bias` (plan → corrected float graph)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qpipe.errors import ConfigError
from qpipe.plugins.stage import Draft, StageContext, StageType
from qpipe.records.quantization import Override, RangeMethod

if TYPE_CHECKING:
    import onnx_ir as ir

    from qpipe.quant.calibration.statistics import Statistics
    from qpipe.quant.grid import Grid
    from qpipe.quant.options import QuantOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeParams:
    """Parameters of `quantize`."""

    ranges: RangeMethod = "mse"
    percentile: float = 99.999
    weights: Literal["max", "mse"] = "max"
    keep_float: tuple[str, ...] = ()
    """Patterns over node names, `op:TYPE`, or `stem` (what reads a model input directly), that stay float."""
    overrides: tuple[Override, ...] = ()
    pixels_below: int | None = None
    """First convolutions of 8-bit images with rows of fewer pixels are quantized without loss; null: as the target's
    scheme says, 0: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams:
    """A stage without parameters."""


def quant_options(params: QuantizeParams) -> QuantOptions:
    """The parameters as the quantizer takes them."""
    from qpipe.quant.options import QuantOptions

    return QuantOptions(
        ranges=params.ranges,
        percentile=params.percentile,
        weights=params.weights,
        keep_float=params.keep_float,
        overrides=params.overrides,
        pixels_below=params.pixels_below,
    )


def _quantize(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.diagnosis.lint import lint_plan
    from qpipe.quant.plan import make_plan
    from qpipe.quant.static import refuse_empty

    assert isinstance(params, QuantizeParams)
    if draft.statistics is None:
        raise ConfigError("stage 'quantize' has no statistics", hint="put `calibrate` before it")
    options = quant_options(params)
    draft, model, statistics = _read_pixels(draft, draft.statistics, options, context)
    plan = make_plan(model, statistics, context.scheme, options)
    refuse_empty(plan)
    return replace(draft, plan=plan, qdq=None, remarks=(*draft.remarks, *lint_plan(plan)))


def _read_pixels(
    draft: Draft, folder: Path, options: QuantOptions, context: StageContext
) -> tuple[Draft, ir.Model, Statistics]:
    """The draft with its first convolutions on the pixels' own grid, where they have one and the scheme asks for it."""
    from qpipe.quant.calibration.statistics import load_statistics, save_statistics
    from qpipe.quant.check import check_rewrite
    from qpipe.quant.graph import open_graph, save_graph
    from qpipe.quant.grid import VERSION, find_grid, load_grid, save_grid
    from qpipe.quant.pixels import LEFT_OUT, read_pixels

    def find(name: str, axis: int) -> Grid | None:
        def make(kept: Path) -> None:
            save_grid(find_grid((batch[name] for batch in context.calibration()), axis), kept)

        text = f"grid {VERSION} {axis} {name}"
        return load_grid(context.cached(hashlib.sha256(text.encode()).hexdigest(), make))

    model = open_graph(draft.graph.path)
    done, statistics = read_pixels(model, load_statistics(folder), context.scheme, options, find)
    if not done:
        return draft, model, statistics
    before = open_graph(draft.graph.path)
    check_rewrite(before, model, context.calibration(), stage="quantize", hint=LEFT_OUT)
    target = context.workdir / "statistics"
    target.mkdir()
    save_statistics(statistics, target)
    graph = context.onnx_file(save_graph(model, context.workdir / "model.onnx"))
    return replace(draft, graph=graph, statistics=target), model, statistics


def _correct(draft: Draft, _: object, context: StageContext) -> Draft:
    from qpipe.quant.calibration.statistics import load_statistics
    from qpipe.quant.corrections.bias import correct_bias
    from qpipe.quant.graph import open_graph, save_graph

    if draft.statistics is None or draft.plan is None:
        raise ConfigError("stage 'correct-bias' has no plan", hint="put `calibrate` and `quantize` before it")
    model = open_graph(draft.graph.path)
    done = correct_bias(model, draft.plan, load_statistics(draft.statistics))
    return replace(
        draft,
        graph=context.onnx_file(save_graph(model, context.workdir / "model.onnx")),
        plan=replace(draft.plan, corrected=done),
        qdq=None,
    )


QUANTIZE: StageType[object] = StageType(
    name="quantize",
    summary="plan static quantization by the target's scheme",
    params=QuantizeParams,
    apply=_quantize,
    needs_calibration=True,
    operators=lambda scheme: scheme.ops,
)
CORRECT_BIAS: StageType[object] = StageType(
    name="correct-bias",
    summary="take back the mean shift of rounded weights, analytically",
    params=NoParams,
    apply=_correct,
    needs_calibration=True,
)
