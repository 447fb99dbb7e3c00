"""Embedding tables as int8 rows with a scale each: a lookup reads a quarter of the bytes, and so does the file."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import drop_unread, take_place
from qpipe.quant.graph import attr_int, constant, name_of
from qpipe.quant.options import QuantOptions
from qpipe.quant.weights.int8 import quantize_weight
from qpipe.quant.writer import Writer
from qpipe.records.quantization import QuantPlan, WeightSpec
from qpipe.records.scheme import Scheme

SMALLEST_BYTES = 2**16
"""Smaller tables are not worth three more nodes."""


def plan_tables(
    graph: ir.Graph, scheme: Scheme, options: QuantOptions, weights: Iterable[WeightSpec] = ()
) -> tuple[WeightSpec, ...]:
    """Specifications of the tables that lookups alone read; rows are the channels.

    Nodes of `weights` get weights of their own: a table that is an output layer's matrix too counts as well.
    """
    readers: dict[str, list[str]] = {}
    for node in graph:
        value = node.inputs[0] if node.inputs else None
        if node.op_type in scheme.table_ops and value is not None and _is_table(graph, node) and not options.keep(node):
            readers.setdefault(name_of(value), []).append(node.name or "")
    apart = {(spec.tensor, node) for spec in weights for node in spec.nodes}
    return tuple(
        WeightSpec(tensor=tensor, dtype="int8", bits=8, symmetric=True, axis=0, nodes=tuple(nodes))
        for tensor, nodes in readers.items()
        if all(
            use.node.name in nodes if use.idx == 0 else use.idx == 1 and (tensor, use.node.name) in apart
            for use in graph.initializers[tensor].uses()
        )
    )


def _is_table(graph: ir.Graph, node: ir.Node) -> bool:
    array = constant(node.inputs[0])
    if array is None or array.dtype != np.float32 or array.ndim != 2 or node.graph is not graph:
        return False
    return attr_int(node, "axis", 0) == 0 and array.nbytes >= SMALLEST_BYTES and bool(np.isfinite(array).all())


def is_table(spec: WeightSpec, nodes: dict[str | None, ir.Node]) -> bool:
    """Whether a weight specification is about a lookup rather than a weighted operator."""
    return all(name in nodes and nodes[name].op_type == "Gather" for name in spec.nodes)


def render_tables(graph: ir.Graph, plan: QuantPlan) -> None:
    """Gather integers and scales, and multiply: in place."""
    writer, nodes = Writer(graph), {node.name: node for node in graph}
    for spec in plan.weights:
        if not is_table(spec, nodes):
            continue
        value = nodes[spec.nodes[0]].inputs[0]
        assert value is not None
        found = quantize_weight(np.asarray(constant(value), np.float32), spec)
        table = writer.initializer(f"{spec.tensor}_quantized", found.values)
        scales = writer.initializer(f"{spec.tensor}_scale", found.scale.reshape(-1, 1))
        for name in spec.nodes:
            _replace(writer, nodes[name], table, scales)
        drop_unread(graph, value)


def _replace(writer: Writer, node: ir.Node, table: ir.Value, scales: ir.Value) -> None:
    rows = ir.node("Gather", [table, node.inputs[1]], name=f"{node.name}/rows")
    steps = ir.node("Gather", [scales, node.inputs[1]], name=f"{node.name}/scales")
    real = ir.node("Cast", [rows.outputs[0]], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{node.name}/real")
    product = ir.node("Mul", [real.outputs[0], steps.outputs[0]], name=node.name)
    for part, suffix in ((rows, "rows"), (steps, "scales"), (real, "real")):
        part.outputs[0].name = writer.names.fresh(f"{node.name}_{suffix}")
    writer.graph.insert_before(node, [rows, steps, real, product])
    take_place(node.outputs[0], product.outputs[0])
    writer.graph.remove(node, safe=True)
