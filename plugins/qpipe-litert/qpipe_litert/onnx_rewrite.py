"""Rewrites that change no value, for patterns that the converter gets wrong."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_FAR = 2**31 - 1
_RECURRENT = ("LSTM", "GRU", "RNN")
_LENGTHS = 4
"""Where a recurrent node takes the length of each row."""


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    """All of them; shapes are inferred."""
    return means_as_pools(strided_slices_as_pools(last_states_as_steps(model)))


def strided_slices_as_pools(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every `x[:, :, ::s]` or `x[..., ::s]` of rank 4 as a 1×1 MaxPool with that stride: the same numbers.

    onnx2tf 2.6.9 loses the producer of a tensor that feeds both a convolution and such a Slice (the parameter-free
    shortcut of residual nets); it handles pools well, and they have integer kernels everywhere.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    ranks = _ranks(made)
    for index, node in enumerate(made.graph.node):
        strides = _spatial_strides(node, constants) if node.op_type == "Slice" else None
        if strides is not None and ranks.get(node.input[0]) == 4:
            pool = helper.make_node(
                "MaxPool", node.input[:1], node.output, name=node.name, kernel_shape=[1, 1], strides=strides
            )
            made.graph.node[index].CopyFrom(pool)
    return made


def means_as_pools(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every `x.mean((2, 3))` or `x.amax((2, 3))` of rank 4 as a global pool: the same numbers.

    Channels lie last in the file: onnx2tf turns the image back for a mean that drops its axes, and the mean then goes
    over the innermost axis, which NPUs do not run.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    shapes = {value.name: _shape(value) for value in (*made.graph.input, *made.graph.value_info)}
    nodes = [
        pool
        for node in made.graph.node
        for pool in (_as_pool(node, constants, shapes.get(node.input[0], ()) if node.input else ()) or (node,))
    ]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def last_states_as_steps(model: onnx.ModelProto) -> onnx.ModelProto:
    """The last state of every LSTM, GRU and RNN of one direction as the last step of its answers: the same numbers.

    onnx2tf 2.6.9 writes a file that computes something else, or cannot be loaded, where a state itself is read.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    read = _read(made.graph)
    nodes = [one for node in made.graph.node for one in _with_last_step(node, made.graph, read)]
    if len(nodes) == len(made.graph.node):
        return made
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return onnx.shape_inference.infer_shapes(made)


def states_read(model: onnx.ModelProto) -> tuple[str, ...]:
    """States of recurrent nodes that are read and are not the last step of their answers."""
    graph = last_states_as_steps(model).graph
    read = _read(graph)
    return tuple(name for node in graph.node if node.op_type in _RECURRENT for name in node.output[1:] if name in read)


def _with_last_step(node: onnx.NodeProto, graph: onnx.GraphProto, read: Set[str]) -> tuple[onnx.NodeProto, ...]:
    """A recurrent node and what takes the step that its last state is; the node alone where that is no one step."""
    if node.op_type not in _RECURRENT or not set(node.output[1:2]) & read:
        return (node,)
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    step = {b"forward": -1, b"reverse": 0}.get(given.get("direction", b"forward"))
    if step is None or any(node.input[_LENGTHS : _LENGTHS + 1]) or given.get("layout", 0):
        return (node,)
    state = node.output[1]
    node.output[0], node.output[1] = node.output[0] or f"{state}_steps", ""
    graph.initializer.append(numpy_helper.from_array(np.array(step), f"{state}_step"))
    return node, helper.make_node("Gather", [node.output[0], f"{state}_step"], [state], axis=0)


def _read(graph: onnx.GraphProto) -> Set[str]:
    return {name for node in graph.node for name in node.input if name} | {output.name for output in graph.output}


def _as_pool(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]], shape: tuple[int, ...]
) -> tuple[onnx.NodeProto, ...]:
    """The pool, and the Flatten behind it where the axes are dropped; nothing where this is no mean of an image."""
    given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    axes = constants.get(node.input[1]) if len(node.input) > 1 else np.array(given.get("axes", ()))
    kinds = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "MaxPool", "GlobalMaxPool": "MaxPool"}
    if node.op_type not in kinds or len(shape) != 4 or not all(shape[2:]):
        return ()
    if node.op_type != "GlobalMaxPool" and (axes is None or sorted(int(one) % 4 for one in axes) != [2, 3]):
        return ()
    kept = node.op_type == "GlobalMaxPool" or bool(given.get("keepdims", 1))
    pooled = node.output[0] if kept else f"{node.output[0]}_pooled"
    pool = helper.make_node(kinds[node.op_type], node.input[:1], [pooled], name=node.name)
    if pool.op_type == "MaxPool":
        pool.attribute.append(helper.make_attribute("kernel_shape", shape[2:]))
    return (pool,) if kept else (pool, helper.make_node("Flatten", [pooled], node.output))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sizes of a float tensor, 0 where one is not known; nothing of another type."""
    tensor = value.type.tensor_type
    return tuple(dim.dim_value for dim in tensor.shape.dim) if tensor.elem_type == onnx.TensorProto.FLOAT else ()


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    values = (*model.graph.input, *model.graph.value_info)
    floats = [v for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    return {v.name: len(v.type.tensor_type.shape.dim) for v in floats if v.type.tensor_type.HasField("shape")}


def _spatial_strides(node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]]) -> list[int] | None:
    if len(node.input) != 5 or any(name not in constants for name in node.input[1:]):
        return None
    starts, ends, axes, steps = (constants[name].reshape(-1).astype(np.int64) for name in node.input[1:])
    whole = not starts.any() and bool((ends >= _FAR).all())
    if not whole or not set(axes.tolist()) <= {2, 3, -1, -2} or bool((steps < 1).any()):
        return None
    strides = [1, 1]
    for axis, step in zip(axes.tolist(), steps.tolist(), strict=True):
        strides[axis % 4 - 2] = int(step)
    return strides
