"""Why is it worse, and where: every quantized tensor of a Q/DQ graph beside its float self."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.measure.evaluation import sqnr_db
from qpipe.plugins.backend import Tensors
from qpipe.quant.check import run_float
from qpipe.quant.diagnosis.alone import FED, SUFFIX, cut
from qpipe.quant.diagnosis.choices import take_back_by_rows
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
    specs = [spec for spec in plan.activations if f"{spec.tensor}{SUFFIX}" in names]
    as_given = graph.clone()
    take_back_by_rows(as_given, plan, frozenset(plan.corrected), batch)
    found: list[Layer] = []
    for start in range(0, len(specs), TENSORS_AT_ONCE):
        part = specs[start : start + TENSORS_AT_ONCE]
        floats = _intermediates(graph, [spec.tensor for spec in part], batch)
        integers = _intermediates(qdq, [f"{spec.tensor}{SUFFIX}" for spec in part], batch, _types(part))
        alone = _alone(as_given, qdq, plan, part, batch)
        for spec, old, new in zip(part, floats, integers, strict=True):
            layer = _layer(spec, produced.get(spec.tensor), _sqnr(spec, old, new))
            found.append(replace(layer, alone_db=alone.get(spec.tensor)))
    order = {name: number for number, name in enumerate(produced)}
    return tuple(sorted(found, key=lambda layer: order.get(layer.tensor, -1)))


def _alone(
    graph: ir.Model, qdq: ir.Model, plan: QuantPlan, part: Sequence[ActivationSpec], batch: Tensors
) -> dict[str, float | None]:
    """SQNR of each tensor whose layer reads the float model's own values: nothing is inherited."""
    own = [spec.tensor for spec in part]
    segments, fed = cut(qdq, plan, own)
    names = tuple(dict.fromkeys((*own, *fed)))
    floats = dict(zip(names, _intermediates(graph, names, batch), strict=True))
    feed = {**batch, **{f"{name}{FED}": np.asarray(floats[name], np.float32) for name in fed}}
    integers = _intermediates(segments, [f"{name}{SUFFIX}" for name in own], feed, _types(part))
    return {spec.tensor: _sqnr(spec, floats[spec.tensor], new) for spec, new in zip(part, integers, strict=True)}


def _types(part: Sequence[ActivationSpec]) -> dict[str, ir.DataType]:
    return {f"{spec.tensor}{SUFFIX}": onnx_type(spec.dtype) for spec in part}


def _sqnr(spec: ActivationSpec, old: NDArray[np.generic], new: NDArray[np.generic]) -> float | None:
    real = (np.asarray(new, np.float64) - spec.zero_point) * spec.scale
    return sqnr_db(np.asarray(old, np.float64), real)


def _layer(spec: ActivationSpec, node: ir.Node | None, sqnr: float | None) -> Layer:
    return Layer(
        tensor=spec.tensor,
        node=(node.name or "") if node is not None else "",
        op=node.op_type if node is not None else "input",
        sqnr_db=sqnr,
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
