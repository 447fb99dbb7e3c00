"""The signature of an ONNX graph: its inputs that are no initializers, and its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ModelError
from qpipe.records.tensors import Dim, Signature, TensorSpec

if TYPE_CHECKING:
    import onnx


def read_signature(path: Path, proto: onnx.ModelProto) -> Signature:
    """Names, numpy dtypes and shapes, in the graph's order.

    Raises:
        ModelError: no inputs or outputs, or one that is no tensor of numbers or has no shape.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(value for value in proto.graph.input if value.name not in constants)
    outputs = tuple(proto.graph.output)
    if not inputs or not outputs:
        missing = "inputs" if not inputs else "outputs"
        raise ModelError(f"{path}: the graph has no {missing}", hint="export the model with its inputs and outputs")
    if any(not value.type.tensor_type.HasField("shape") for value in outputs if value.type.HasField("tensor_type")):
        outputs = _inferred(proto)
    return Signature(
        inputs=tuple(_spec(path, "input", value) for value in inputs),
        outputs=tuple(_spec(path, "output", value) for value in outputs),
    )


def _inferred(proto: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, ...]:
    import onnx

    return tuple(onnx.shape_inference.infer_shapes(proto).graph.output)


def _spec(path: Path, role: str, value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "value of no type").removesuffix("_type").replace("_", " ")
        raise ModelError(
            f"{path}: {role} {value.name!r} is a {what}, not a tensor",
            hint="qpipe takes plain tensors: export without sequences and maps (skl2onnx: options={'zipmap': False})",
        )
    tensor = value.type.tensor_type
    if tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        what = "strings" if tensor.elem_type == onnx.TensorProto.STRING else "no known type"
        raise ModelError(
            f"{path}: {role} {value.name!r} has elements of {what}",
            hint="qpipe feeds tensors of numbers: encode text before the model, and export what comes after"
            if role == "input"
            else "qpipe judges tensors of numbers: leave this output out (del model.graph.output[NUMBER], onnx.save)",
        )
    if not tensor.HasField("shape"):
        raise ModelError(
            f"{path}: {role} {value.name!r} has no shape", hint="export it with a shape; dimensions may be free"
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(name=value.name, dtype=dtype.name, shape=tuple(_dim(dim) for dim in tensor.shape.dim))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return dim.dim_param or None
