"""New nodes and initializers of a graph, under names that are free: the graph is read once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.quant.edits import Names, add_initializer

_NONE: Mapping[str, int | float | tuple[int, ...]] = MappingProxyType({})


class Writer:
    """Writes into one graph. It does not see the names that others give meanwhile."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph, self.names = graph, Names(graph)

    def initializer(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """A new constant; its name may get a number."""
        return add_initializer(self.graph, self.names.fresh(name), array)

    def insert(
        self,
        before: ir.Node,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | tuple[int, ...]] = _NONE,
        name: str = "",
    ) -> ir.Value:
        """The output of a new node before another one of the graph."""
        node = ir.node(op, inputs, attributes, name=name or None)
        self.graph.insert_before(before, node)
        return node.outputs[0]
