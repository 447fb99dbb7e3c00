"""Constant folding: every node that depends on constants alone is computed once by the reference runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.quant.edits import make_constant
from qpipe.quant.session import content_of

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
LARGEST_ELEMENTS = 2**22
"""A folded constant may not have more elements than this, so that ConstantOfShape and Expand stay small on disk."""


def fold_constants(model: ir.Model) -> None:
    """Replace nodes of the main graph that depend on initializers alone by initializers."""
    graph = model.graph
    foldable = _constant_nodes(graph)
    frontier = [
        value
        for node in foldable
        for value in node.outputs
        if value.name and not value.is_graph_output() and any(use.node not in foldable for use in value.uses())
    ]
    if not frontier:
        return
    arrays = _evaluate(model, frontier)
    for value, array in zip(frontier, arrays, strict=True):
        make_constant(graph, value, array)


def _constant_nodes(graph: ir.Graph) -> dict[ir.Node, None]:
    foldable: dict[ir.Node, None] = {}
    for node in graph:
        if node.op_type in RANDOM_OPS or not node.inputs or node.domain not in {"", "ai.onnx"}:
            continue
        if any(attr.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attr in node.attributes.values()):
            continue
        if not all(value is None or _constant(value, foldable) for value in node.inputs):
            continue
        if all(_small(value) for value in node.outputs):
            foldable[node] = None
    return foldable


def _constant(value: ir.Value, foldable: dict[ir.Node, None]) -> bool:
    return value.is_initializer() or value.producer() in foldable


def _small(value: ir.Value) -> bool:
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        return value.dtype == ir.DataType.INT64
    elements = 1
    for dim in value.shape:
        elements *= int(dim)  # type: ignore[arg-type]  # checked just above
    return elements <= LARGEST_ELEMENTS


def _evaluate(model: ir.Model, outputs: list[ir.Value]) -> list[NDArray[np.generic]]:
    import onnxruntime as ort

    part = ir.convenience.extract(model.graph, [], outputs)
    small = ir.Model(part, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with content_of(small, options) as content:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    arrays: list[NDArray[np.generic]] = session.run(None, {})
    return arrays
