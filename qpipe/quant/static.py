"""Static quantization from end to end, as the `int8` recipe does it: for scripts, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from qpipe.errors import QuantizationError
from qpipe.plugins.backend import Tensors
from qpipe.quant.calibration.calibrate import calibrate
from qpipe.quant.calibration.observed import observed_tensors
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.check import check_rewrite
from qpipe.quant.corrections.bias import correct_bias
from qpipe.quant.corrections.smooth import smooth
from qpipe.quant.fold import fold
from qpipe.quant.graph import open_graph
from qpipe.quant.grid import Grid, find_grid
from qpipe.quant.options import QuantOptions
from qpipe.quant.pixels import LEFT_OUT, read_pixels
from qpipe.quant.plan import make_plan
from qpipe.quant.rendering.render import render
from qpipe.records.quantization import QuantPlan
from qpipe.records.scheme import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A float graph with every correction in it, its plan, and the plan rendered as Q/DQ."""

    graph: ir.Model
    plan: QuantPlan
    qdq: ir.Model
    statistics: Statistics


def quantize_static(
    path: Path, batches: Callable[[], Iterator[Tensors]], scheme: Scheme, options: QuantOptions | None = None
) -> Quantized:
    """Fold, calibrate (one pass), smooth, read pixels, plan, correct biases and render.

    Raises:
        QuantizationError: the graph cannot be quantized; the message names the node and the reason.
    """
    model = open_graph(path)
    before = model.clone()
    if fold(model):
        check_rewrite(before, model, batches())
    statistics = calibrate(model, batches(), observed_tensors(model.graph, scheme))
    _, statistics = smooth(model, statistics, scheme)
    options = options or QuantOptions()
    before = model.clone()

    def grid(name: str, axis: int) -> Grid | None:
        return find_grid((batch[name] for batch in batches()), axis)

    done, statistics = read_pixels(model, statistics, scheme, options, grid)
    if done:
        check_rewrite(before, model, batches(), stage="quantize", hint=LEFT_OUT)
    plan = make_plan(model, statistics, scheme, options)
    refuse_empty(plan)
    plan = replace(plan, corrected=correct_bias(model, plan, statistics))
    return Quantized(graph=model, plan=plan, qdq=render(model, plan), statistics=statistics)


def refuse_empty(plan: QuantPlan) -> None:
    """Make sure that a plan quantizes something.

    Raises:
        QuantizationError: with the first reasons why nothing could be.
    """
    if any(choice.quantized for choice in plan.nodes):
        return
    reasons = [f"{choice.node!r} ({choice.op}): {choice.reason}" for choice in plan.left_in_float()[:3]]
    nothing, others = "nothing in this graph can run on integers", set(plan.scheme.dynamic_ops) - set(plan.scheme.ops)
    if reasons:
        raise QuantizationError(f"{nothing}: {'; '.join(reasons)}", hint="try recipe 'dynamic' or 'fp16'")
    raise QuantizationError(
        f"{nothing}: it has none of {', '.join(plan.scheme.ops)}",
        hint="keep the float model"
        + (f", or try recipe 'dynamic' where it has {', '.join(sorted(others))}" if others else ""),
    )
