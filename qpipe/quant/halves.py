"""Models that come in half precision, computed in float32: what quantizes them is written for float32.

Inputs and outputs keep their dtypes. Integer kernels take float32 on CPUs, and weights stored anew lose nothing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def is_half(model: ir.Model) -> bool:
    """Whether a graph has inputs or weights in half precision."""
    values = (value for graph in model.graphs() for value in (*graph.inputs, *graph.initializers.values()))
    return any(value.dtype in HALVES for value in values)


def widen(model: ir.Model) -> None:
    """Let a graph in half precision compute in float32 between casts of its inputs and outputs, in place.

    Weights are widened when they are read.
    """
    border = [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)]
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values(), *graph.outputs):
            _retype(value)
        for node in graph:
            _widen_attributes(node)
            for value in node.outputs:
                _retype(value)
    _cast_border(model.graph, border)


def _retype(value: ir.Value) -> None:
    if value.dtype not in HALVES:
        return
    value.dtype = ir.DataType.FLOAT
    if value.const_value is not None:
        value.const_value = _wide(value.const_value)


def _wide(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor in float32, made from the narrow one each time that it is read."""
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([dim for dim in tensor.shape if isinstance(dim, int)]),
        name=tensor.name,
    )


def _widen_attributes(node: ir.Node) -> None:
    """Attributes that name a half-precision dtype, or hold such a tensor."""
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.INT and name in {"to", "dtype", "softmax_precision", "stash_type"}:
            if attribute.as_int() in HALVES:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
        elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALVES:
            wide = attribute.as_tensor().numpy().astype(np.float32)
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(wide, name=attribute.as_tensor().name))


def _cast_border(graph: ir.Graph, border: list[ir.DataType | None]) -> None:
    for value, dtype in zip(graph.inputs, border, strict=False):
        if dtype in HALVES and dtype is not None:
            cast = _cast(value, ir.DataType.FLOAT, f"qpipe/{value.name}/wide")
            value.replace_all_uses_with(cast.outputs[0])
            cast.replace_input_with(0, value)
            value.dtype = dtype
            graph.insert_before(graph[0], cast)
    for index, (value, dtype) in enumerate(zip(list(graph.outputs), border[len(graph.inputs) :], strict=True)):
        if dtype in HALVES and dtype is not None:
            name = value.name or ""
            value.name = f"qpipe/{name}/wide"
            cast = _cast(value, dtype, name)
            cast.outputs[0].shape = value.shape
            graph.append(cast)
            graph.outputs[index] = cast.outputs[0]


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], attributes={"to": int(dtype)}, name=f"{name}/cast")
    node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(dtype)
    return node
