"""Why is it worse, and where: every quantized tensor of a Q/DQ graph beside its float self."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.measure.evaluation import sqnr_db
from qpipe.plugins.backend import Tensors
from qpipe.quant.check import run_float
from qpipe.quant.numbers import onnx_type
from qpipe.records.explanation import Layer
from qpipe.records.quantization import ActivationSpec, QuantPlan

TENSORS_AT_ONCE = 12
"""Intermediates that are exposed in one run: bounds memory."""


def explain_layers(graph: ir.Model, qdq: ir.Model, plan: QuantPlan, batch: Tensors) -> tuple[Layer, ...]:
    """Per-layer table of a static plan on one batch of model inputs, in graph order.

    `graph` is the float graph with corrections, `qdq` its rendering.
    """
    produced = {value.name: node for node in graph.graph for value in node.outputs}
    names = {value.name for node in qdq.graph for value in node.outputs}
    specs = [spec for spec in plan.activations if f"{spec.tensor}_quantized" in names]
    found: list[Layer] = []
    for start in range(0, len(specs), TENSORS_AT_ONCE):
        part = specs[start : start + TENSORS_AT_ONCE]
        shown = [f"{spec.tensor}_quantized" for spec in part]
        floats = _intermediates(graph, [spec.tensor for spec in part], batch)
        types = {f"{spec.tensor}_quantized": onnx_type(spec.dtype) for spec in part}
        integers = _intermediates(qdq, shown, batch, types)
        for spec, old, new in zip(part, floats, integers, strict=True):
            real = (np.asarray(new, np.float64) - spec.zero_point) * spec.scale
            found.append(_layer(spec, produced.get(spec.tensor), old, real))
    order = {name: number for number, name in enumerate(produced)}
    return tuple(sorted(found, key=lambda layer: order.get(layer.tensor, -1)))


def _layer(spec: ActivationSpec, node: ir.Node | None, old: NDArray[np.generic], new: NDArray[np.generic]) -> Layer:
    return Layer(
        tensor=spec.tensor,
        node=(node.name or "") if node is not None else "",
        op=node.op_type if node is not None else "input",
        sqnr_db=sqnr_db(np.asarray(old, np.float64), np.asarray(new, np.float64)),
        low=spec.low,
        high=spec.high,
        clipped=spec.clipped,
    )


def _intermediates(
    model: ir.Model, names: Sequence[str], batch: Tensors, types: Mapping[str, ir.DataType] = MappingProxyType({})
) -> list[NDArray[np.generic]]:
    """Values of named tensors on one batch; model inputs are taken from the batch itself."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    wanted = [name for name in dict.fromkeys(names) if name in values]
    feed = {value.name or "": batch[value.name or ""] for value in copy.graph.inputs}
    if not wanted:
        return [np.asarray(batch[name]) for name in names]
    outputs = [values[name] for name in wanted]
    for value in outputs:
        if value.dtype is None:
            value.dtype = types.get(value.name or "", ir.DataType.FLOAT)
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    found = dict(zip(wanted, run_float(copy, feed), strict=True))
    return [found[name] if name in found else np.asarray(batch[name]) for name in names]
