"""Does a plan's range hold for other rows: the share of each tensor's values that its quantizer would cut off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.plugins.backend import Tensors
from qpipe.quant.check import run_float
from qpipe.quant.edits import add_initializer
from qpipe.quant.graph import values_of
from qpipe.records.quantization import ActivationSpec, QuantPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One run of a float graph."""

    outputs: tuple[tuple[str, NDArray[np.generic]], ...]
    """The graph's own outputs, by name."""
    shares: tuple[tuple[str, float], ...]
    """Share of values outside the range, 0 to 1, by tensor."""


def run_watched(graph: ir.Model, plan: QuantPlan, batch: Tensors) -> Watched:
    """Run a float graph on one batch and count what lies outside the plan's ranges.

    Counting is done inside the graph, so that no intermediate leaves the runtime. A value within half a step of an end
    is rounded to it, not cut off.

    Raises:
        QuantizationError: the graph does not run on this batch.
    """
    copy = graph.clone()
    values = values_of(copy.graph)
    own = [value.name or "" for value in copy.graph.outputs]
    specs = [spec for spec in plan.activations if not spec.shares and spec.tensor in values]
    for number, spec in enumerate(specs):
        copy.graph.outputs.append(_share(copy.graph, values[spec.tensor], spec, number))
    found = run_float(copy, {value.name or "": batch[value.name or ""] for value in copy.graph.inputs})
    return Watched(
        outputs=tuple(zip(own, found, strict=False)),
        shares=tuple(
            (spec.tensor, float(np.asarray(share)))
            for spec, share in zip(specs, found[len(own) :], strict=True)
            if np.isfinite(np.asarray(share))
        ),
    )


def _share(graph: ir.Graph, value: ir.Value, spec: ActivationSpec, number: int) -> ir.Value:
    """mean(x ≠ clip(x)) as a new value of the graph."""
    ends = [
        add_initializer(graph, f"qpipe/end{number}/{name}", np.array(end, np.float32))
        for name, end in (("low", spec.low - spec.scale / 2), ("high", spec.high + spec.scale / 2))
    ]
    inside = ir.node("Clip", [value, *ends], num_outputs=1)
    beyond = ir.node("Sub", [value, inside.outputs[0]], num_outputs=1)
    flags = ir.node("Cast", [beyond.outputs[0]], attributes={"to": int(ir.DataType.BOOL)}, num_outputs=1)
    ones = ir.node("Cast", [flags.outputs[0]], attributes={"to": int(ir.DataType.FLOAT)}, num_outputs=1)
    share = ir.node("ReduceMean", [ones.outputs[0]], attributes={"keepdims": 0}, num_outputs=1)
    graph.extend([inside, beyond, flags, ones, share])
    output = share.outputs[0]
    output.name, output.type = f"qpipe/outside{number}", ir.TensorType(ir.DataType.FLOAT)
    return output
