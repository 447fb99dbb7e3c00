"""Changes that every pass makes: new names and constants, and values that take the place of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.quant.graph import name_of


class Names:
    """The value names of a graph: gives new ones without reading the graph each time."""

    def __init__(self, graph: ir.Graph) -> None:
        self._taken = {value.name for node in graph.all_nodes() for value in node.outputs}
        self._taken.update(graph.initializers)
        self._taken.update(value.name for value in graph.inputs)

    def fresh(self, wanted: str) -> str:
        """`wanted`, or the first `wanted_1`, `wanted_2`, … that is free; it is taken from now on."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def fresh_name(graph: ir.Graph, wanted: str) -> str:
    """`wanted`, or the first `wanted_1`, `wanted_2`, … that no value of the graph has."""
    return Names(graph).fresh(wanted)


def add_initializer(
    graph: ir.Graph, name: str, array: NDArray[np.generic], dtype: ir.DataType | None = None
) -> ir.Value:
    """Register a new initializer; `dtype` is needed for types that numpy does not have."""
    tensor = ir.Tensor(array, dtype=dtype, name=name)  # `ir.tensor` asks first what it was given, for ten times as long
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def replace_constant(graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.float32]) -> None:
    """Give a node a new constant input; one that nobody else reads is changed in place and keeps its name."""
    value = node.inputs[index]
    if value is not None and value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output():
        value.const_value = ir.Tensor(array, name=value.name)
        value.shape = ir.Shape(array.shape)
        return
    base = f"{node.name}/constant" if value is None else name_of(value)
    node.replace_input_with(index, add_initializer(graph, fresh_name(graph, base), array))


def set_bias(graph: ir.Graph, node: ir.Node, bias: NDArray[np.float32]) -> None:
    """Give a Conv, ConvTranspose or Gemm this bias, whether it had one or not."""
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    replace_constant(graph, node, 2, bias)


def make_constant(graph: ir.Graph, value: ir.Value, array: NDArray[np.generic]) -> None:
    """Let a constant take the place of a node's output, under its name."""
    name, value.name = name_of(value), None
    value.replace_all_uses_with(add_initializer(graph, name, array))


def take_place(old: ir.Value, new: ir.Value) -> None:
    """Let a value take the place of another one: its readers, its name, shape and dtype, as a graph output too.

    Where neither dtype is known it is float32. The node that made the old value still has to be taken out.
    """
    old.replace_all_uses_with(new, replace_graph_outputs=old.is_graph_output())
    new.name, new.shape = old.name, old.shape
    new.dtype = old.dtype or new.dtype or ir.DataType.FLOAT


def absorb(graph: ir.Graph, gone: ir.Node, into: ir.Node) -> None:
    """Take out a node that alone reads the output of another one, which now makes its tensor."""
    take_place(gone.outputs[0], into.outputs[0])
    graph.remove(gone, safe=True)


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Put nodes right behind the one that makes a value; before all others where no node does."""
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)


def drop_unread(graph: ir.Graph, value: ir.Value) -> None:
    """Take out an initializer that nobody reads any more."""
    if not value.uses() and not value.is_graph_output():
        graph.initializers.pop(name_of(value), None)
