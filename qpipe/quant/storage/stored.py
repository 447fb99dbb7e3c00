"""Weights stored in half precision for targets that compute in float32: half the file at float32's speed.

A runtime without half-precision kernels casts every activation back and forth around each operator of a half-precision
graph, at every run. Here each weight has one Cast to float32 beside it instead, which runtimes fold when they load.
Source: onnxruntime issues 11831 and 16778 (casts that it inserts on CPUs); `ConstantFolding`, level `basic`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from qpipe.errors import QuantizationError
from qpipe.quant.edits import Names
from qpipe.quant.graph import name_of
from qpipe.quant.rendering.cast import LARGEST, Half, half_type
from qpipe.quant.rendering.render import forget_shapes

NORMAL: dict[Half, float] = {"float16": 2.0**-14, "bfloat16": 2.0**-126}
"""The smallest number that a type holds with all its digits."""
SMALLEST = 128
"""Values of the smallest weight that is stored so: a Cast with its names takes some 120 bytes."""


def store_half(model: ir.Model, dtype: Half, *, keep_float: tuple[str, ...] = ()) -> ir.Model:
    """A copy of the graph with its float32 weights in half precision, each behind a Cast to float32.

    Stored as they are: weights of fewer than `SMALLEST` values, what the type cannot hold, initializers of subgraphs,
    and what operators in `keep_float` (types or node names) read. Every operator computes in float32.

    Raises:
        QuantizationError: nothing is left to be stored so.
    """
    copy = model.clone()
    names = Names(copy.graph)
    casts = [
        pair
        for value in list(copy.graph.initializers.values())
        if _fits(value, dtype) and not any({use.node.op_type, use.node.name} & set(keep_float) for use in value.uses())
        for pair in _store(copy.graph, names, value, dtype)
    ]
    if not casts:
        raise QuantizationError(
            f"no weight of this graph can be stored in {dtype}: a target without {dtype} kernels gains nothing else",
            hint=f"weights of {SMALLEST} values and more count, where `keep_float` does not name their reader",
        )
    for after, cast in casts:
        if after is None:
            copy.graph.insert_before(copy.graph[0], cast)
        else:
            copy.graph.insert_after(after, cast)
    forget_shapes(copy.graph)
    return copy


def _fits(value: ir.Value, dtype: Half) -> bool:
    """Whether a value is a float32 weight that is worth it, and that the type can hold."""
    if value.dtype != ir.DataType.FLOAT or value.const_value is None or value.is_graph_output():
        return False
    if value.const_value.size < SMALLEST or value.is_graph_input() or not value.uses():
        return False
    array = np.asarray(value.const_value.numpy())
    finite = array[np.isfinite(array)]
    largest = float(np.abs(finite).max()) if finite.any() else 1.0
    return NORMAL[dtype] <= largest <= LARGEST[dtype]


def _store(graph: ir.Graph, names: Names, value: ir.Value, dtype: Half) -> Iterator[tuple[ir.Node | None, ir.Node]]:
    """Casts that give a weight's readers float32, each with the node behind which it stands (None: at the beginning).

    The weight keeps its name. Of a table that lookups alone read, the rows that they find are cast, at each run: that
    costs little, and the table takes half the memory.
    """
    assert value.const_value is not None
    half = half_type(dtype)
    array = np.asarray(value.const_value.numpy(), np.float32).astype(half.numpy())
    lookups = [use.node for use in value.uses() if _looks_up(use.node, use.idx, graph)]
    if len(lookups) == len(value.uses()):
        yield from ((node, _cast(names, node.outputs[0])) for node in lookups)
    else:
        yield None, _cast(names, value)
    value.const_value = ir.Tensor(array, dtype=half, name=name_of(value))
    value.type = ir.TensorType(half)


def _looks_up(node: ir.Node, index: int, graph: ir.Graph) -> bool:
    """Whether a node of this graph takes single rows of the table."""
    return node.op_type == "Gather" and index == 0 and node.graph is graph and not node.outputs[0].is_graph_output()


def _cast(names: Names, value: ir.Value) -> ir.Node:
    """A Cast to float32 whose output everyone reads instead of the value."""
    node = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{value.name}/cast")
    node.outputs[0].name = names.fresh(f"{value.name}_float32")
    value.replace_all_uses_with(node.outputs[0])
    node.replace_input_with(0, value)
    return node
