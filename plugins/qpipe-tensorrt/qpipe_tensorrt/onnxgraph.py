"""What this plugin wants to know of an ONNX file before the vendor sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights or two activations: those that placement counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A QuantizeLinear or DequantizeLinear: its integer type and whether its zero points are all 0."""

    node: str
    op: str
    dtype: str
    """Type on the integer side, by ONNX's name (`INT8`)."""
    symmetric: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNode:
    """A node by the name that TensorRT gives its layers."""

    name: str
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """Nodes, Q/DQ pairs and dynamic inputs of one file; no weights are kept."""

    nodes: tuple[OnnxNode, ...]
    pairs: tuple[Pair, ...]
    dynamic_inputs: tuple[str, ...]
    dtypes: tuple[str, ...]
    """Types of initializers and casts, by ONNX's names."""
    doubles: tuple[str, ...] = ()
    """Inputs and outputs of float64."""

    @property
    def weighted(self) -> tuple[OnnxNode, ...]:
        """Convolutions and matrix products."""
        return tuple(node for node in self.nodes if node.op in WEIGHTED)


def read_graph(path: Path) -> OnnxGraph:
    """Read nodes and types; external data stays on disk.

    Raises:
        BuildError: the file is not an ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no types

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise BuildError(f"{path.name} cannot be read as ONNX: {error}") from error
    return _Scope(model.graph).graph()


def layer_name(node: onnx.NodeProto) -> str:
    """The name that TensorRT's parser gives to the node's layers: its own, or one made from its first output."""
    return node.name or f"node_of_{node.output[0]}"


class _Scope:
    """All nodes and constants of a graph and its subgraphs; names of tensors are unique across them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._top = graph
        self._nodes = tuple(walk(graph))
        self._tensors: dict[str, onnx.TensorProto] = {}
        for item in (graph, *_subgraphs(graph)):
            self._tensors.update((tensor.name, tensor) for tensor in item.initializer)
        for node in self._nodes:
            self._tensors.update(_constant(node))
        self._makers = {name: node for node in self._nodes for name in node.output}

    def graph(self) -> OnnxGraph:
        given = {tensor.name for tensor in self._top.initializer}
        return OnnxGraph(
            nodes=tuple(OnnxNode(name=layer_name(node), op=_op(node)) for node in self._nodes),
            pairs=tuple(
                self._pair(node) for node in self._nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")
            ),
            dynamic_inputs=tuple(
                value.name for value in self._top.input if value.name not in given and _dynamic(value)
            ),
            doubles=tuple(value.name for value in (*self._top.input, *self._top.output) if _is_double(value)),
            dtypes=tuple(sorted({_dtype(tensor.data_type) for tensor in self._tensors.values()} | self._casts())),
        )

    def _casts(self) -> set[str]:
        return {
            _dtype(attribute.i)
            for node in self._nodes
            if node.op_type == "Cast"
            for attribute in node.attribute
            if attribute.name == "to"
        }

    def _pair(self, node: onnx.NodeProto) -> Pair:
        name = node.input[2] if len(node.input) > 2 else ""
        zero = self._tensors.get(name)
        without = "unknown" if name else self._type_without_zero(node)
        dtype = _dtype(zero.data_type) if zero is not None else without
        symmetric = zero is None or _all_zero(zero)
        return Pair(node=layer_name(node), op=node.op_type, dtype=dtype, symmetric=symmetric)

    def _type_without_zero(self, node: onnx.NodeProto) -> str:
        if node.op_type == "QuantizeLinear":
            kinds = [attribute.i for attribute in node.attribute if attribute.name == "output_dtype"]
            return _dtype(kinds[0]) if kinds else "UINT8"
        stored = self._tensors.get(node.input[0])
        if stored is not None:
            return _dtype(stored.data_type)
        maker = self._makers.get(node.input[0])
        return self._pair(maker).dtype if maker is not None and maker.op_type == "QuantizeLinear" else "unknown"


def _op(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def walk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph, then those of its subgraphs."""
    yield from graph.node
    for inner in _subgraphs(graph):
        yield from inner.node


def _subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g,) if attribute.HasField("g") else tuple(attribute.graphs):
                yield inner
                yield from _subgraphs(inner)


def _constant(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name == "value":
                yield node.output[0], attribute.t


def _dynamic(value: onnx.ValueInfoProto) -> bool:
    return any(not dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)


def _is_double(value: onnx.ValueInfoProto) -> bool:
    return _dtype(value.type.tensor_type.elem_type) == "DOUBLE"


def _dtype(number: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(number))


def _all_zero(tensor: onnx.TensorProto) -> bool:
    """Zero points stored outside the file are left to the parser, which refuses them too."""
    import onnx
    from onnx import numpy_helper

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return True
    return not numpy_helper.to_array(tensor).astype("float32").any()
