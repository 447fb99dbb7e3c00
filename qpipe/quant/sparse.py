"""Sparse constants made dense: onnx-ir has none, and drops or refuses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import numpy_helper


def make_dense(model: onnx.ModelProto) -> None:
    """Replace sparse initializers and sparse Constants of all graphs and functions by dense ones, in place."""
    for graph in _graphs(model.graph.node, [model.graph]):
        graph.initializer.extend(_dense(one, one.values.name) for one in graph.sparse_initializer)
        del graph.sparse_initializer[:]
        _fill_constants(graph.node)
    for function in model.functions:
        for graph in _graphs(function.node, []):
            _fill_constants(graph.node)
        _fill_constants(function.node)


def _graphs(nodes: Iterable[onnx.NodeProto], own: list[onnx.GraphProto]) -> Iterator[onnx.GraphProto]:
    yield from own
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(graph.node, [graph])


def _fill_constants(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                tensor = _dense(attribute.sparse_tensor, node.output[0])
                attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _dense(sparse: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    """Indices are linear, [n], or one row for each value, [n, rank]. Source: onnx.proto, SparseTensorProto."""
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    places = np.unravel_index(indices, array.shape) if indices.ndim == 1 else tuple(indices.T)
    array[places] = values
    return numpy_helper.from_array(array, name)
