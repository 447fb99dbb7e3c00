"""The float ONNX graph as the converter and the comparison need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from qpipe.errors import BuildError

Array = NDArray[np.generic]


def load_float(path: Path) -> tuple[onnx.ModelProto, bool]:
    """The graph with float16 widened to float32, and whether weights had it: kernels round again from the file."""
    model = onnx.load(path)
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if half or _has_half(model.graph):
        _widen(model.graph)
    return model, half


def _has_half(graph: onnx.GraphProto) -> bool:
    """Whether float16 stands at the border or in an operator: inputs alone may have it."""
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    kinds.update(one.i for node in graph.node if node.op_type == "Cast" for one in node.attribute if one.name == "to")
    kinds.update(one.t.data_type for node in graph.node for one in node.attribute if one.HasField("t"))
    return TensorProto.FLOAT16 in kinds


def _widen(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.value_info[:]


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def fold(model: onnx.ModelProto, workdir: Path) -> onnx.ModelProto:
    """The graph with constants folded and shapes inferred; without shapes the converter writes them as run-time ops.

    Raises:
        BuildError: onnxruntime cannot load the float graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(workdir / "folded.onnx")
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise BuildError(f"onnxruntime cannot load the float graph: {str(problem).splitlines()[0]}") from problem
    return onnx.shape_inference.infer_shapes(onnx.load(workdir / "folded.onnx"))


def fix_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int | None, ...]]) -> onnx.ModelProto:
    """The graph with its inputs' free dimensions fixed; None stays free."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            if size is not None:
                dim.dim_value = size
    return fixed


def run_reference(
    model: onnx.ModelProto, inputs: Mapping[str, Array], *, intermediates: bool = False
) -> dict[str, Array]:
    """Outputs by name on onnxruntime's CPU without graph optimization; all float intermediates if asked.

    Raises:
        BuildError: onnxruntime cannot run the float graph.
    """
    import onnxruntime

    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    names = [output.name for output in asked.graph.output]
    if intermediates:
        more = [name for node in asked.graph.node for name in node.output if name and name not in names]
        asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in more)
        names += more
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(asked.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run(names, dict(inputs))
    except Exception as problem:
        first = str(problem).splitlines()[0]
        raise BuildError(f"onnxruntime cannot run the float graph: {first}") from problem
    return dict(zip(names, found, strict=True))


def mixed_outputs(
    model: onnx.ModelProto, inputs: Mapping[str, Array], same: Callable[[Array, Array], bool]
) -> tuple[str, ...]:
    """Outputs whose rows are other ones where each row of the inputs is run alone."""
    together = run_reference(model, inputs)
    count = len(next(iter(inputs.values())))
    alone = [run_reference(model, {name: rows[i : i + 1] for name, rows in inputs.items()}) for i in range(count)]
    return tuple(
        name
        for name, rows in together.items()
        if not all(same(rows[i : i + 1], one[name]) for i, one in enumerate(alone))
    )


def widened(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """float16 arrays as float32, as the widened graph takes them."""
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()}
