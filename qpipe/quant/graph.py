"""ONNX graphs through onnx-ir: opening with checks, saving, and the few questions that every pass asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from qpipe.errors import ModelError, QuantizationError
from qpipe.quant.halves import is_half, widen
from qpipe.quant.sparse import make_dense

NEEDED_OPSET = 13
"""First opset with per-channel QuantizeLinear/DequantizeLinear."""
NEWEST_OPSET = 27
"""The last one whose QuantizeLinear a runtime has kernels for: onnxruntime 1.32 loads 28 and has none."""
PREPARED = "qpipe.prepared"
"""Metadata of graphs that we wrote: they are tidy already."""
LARGE_BYTES = 2**28
"""Weights from which a graph is saved with external data: protobuf takes three times their memory to write and read a
message, and ends at 2 GB."""
_QUANTIZED = (
    "Quantize",
    "Dequantize",
    "DynamicQuantize",
    "QLinear",
    "QGemm",
    "QAttention",
    "MatMulInteger",
    "ConvInteger",
)
"""Beginnings of the operators of quantized graphs."""
FLOAT_MODEL = "give the float model that this one was made from, or use recipe 'none'"
"""What to do where a model is quantized already."""


def is_quantized(op_type: str) -> bool:
    """Whether an operator belongs to a graph that was quantized before."""
    return op_type.startswith(_QUANTIZED) or op_type in {"MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"}


def open_graph(path: Path) -> ir.Model:
    """A float graph, ready for passes: functions inlined, constants lifted, every node named, shapes inferred.

    Graphs of an opset before 13 are converted to 13, those of one after 27 to 27.

    Raises:
        ModelError: the file is not an ONNX graph, or cannot be converted.
        QuantizationError: the graph is already quantized; the message names the first such node.
    """
    try:
        model = _read(path)
    except Exception as error:
        raise ModelError(f"{path} is not a readable ONNX file: {error}") from error
    refuse_quantized(model)
    if model.metadata_props.get(PREPARED) == "1":
        return model
    opset = model.opset_imports.get("", NEEDED_OPSET)
    if not NEEDED_OPSET <= opset <= NEWEST_OPSET:
        passes.InlinePass()(model)  # a conversion would drop the functions
        model = converted(model, min(max(opset, NEEDED_OPSET), NEWEST_OPSET))
    return tidy(model)


def _read(path: Path) -> ir.Model:
    """As `ir.load`, but for sparse constants, which onnx-ir does not have."""
    proto = onnx.load(path, load_external_data=False)
    make_dense(proto)
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def tidy(model: ir.Model) -> ir.Model:
    """Inline functions, lift constants to initializers, drop what nobody reads, name nodes, infer shapes; in place.

    A graph in half precision then computes in float32.
    """
    for step in (
        passes.InlinePass(),
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveUnusedNodesPass(),
        passes.NameFixPass(),
    ):
        step(model)
    if is_half(model):
        widen(model)
    infer_shapes(model)
    model.metadata_props[PREPARED] = "1"
    return model


def infer_shapes(model: ir.Model) -> None:
    """Fill in shapes and dtypes of all values as far as onnx can infer them, in place."""
    passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def save_graph(model: ir.Model, path: Path) -> Path:
    """Write the graph; weights go to `<name>.data` beside it where they are large."""
    if sum(tensor.nbytes for tensor in tensors(model)) >= LARGE_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        own_weights(model)
        ir.save(model, path)
    return path


def tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    """The weights of a graph and of its subgraphs."""
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return [value.const_value for value in values if value.const_value is not None]


def own_weights(model: ir.Model) -> None:
    """Read weights that lie in a file beside the graph into memory: bytes of a graph have no folder to look in."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)


def converted(model: ir.Model, opset: int) -> ir.Model:
    """The graph in another opset.

    Raises:
        ModelError: onnx has no conversion for one of its operators.
    """
    from onnx import version_converter

    found = model.opset_imports.get("", 1)
    try:
        return ir.from_proto(version_converter.convert_version(ir.to_proto(model), opset))
    except Exception as error:
        raise ModelError(
            f"the model has opset {found} and onnx cannot convert it to {opset}: {error}",
            hint=f"export the model again with opset {opset} {'or later' if opset > found else 'or earlier'}",
        ) from error


def refuse_quantized(model: ir.Model) -> None:
    """Make sure that no node is quantized already.

    Raises:
        QuantizationError: naming the first node that is.
    """
    for graph in model.graphs():
        for node in graph:
            if is_quantized(node.op_type):
                raise QuantizationError(
                    f"node {node.name!r} ({node.op_type}) is quantized already",
                    hint=FLOAT_MODEL,
                )


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of an initializer, or None for everything else."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    array: NDArray[np.generic] = value.const_value.numpy()
    return array


def is_float(value: ir.Value | None) -> bool:
    """Whether this is a float32 tensor (or one of unknown dtype)."""
    return value is not None and (value.dtype is None or value.dtype == ir.DataType.FLOAT)


def name_of(value: ir.Value) -> str:
    """The tensor's name, which NameFixPass made sure of."""
    return value.name or ""


def values_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """The inputs of the graph and the outputs of its nodes, by name; constants and subgraphs are left out."""
    values = (*graph.inputs, *(value for node in graph for value in node.outputs))
    return {name_of(value): value for value in values}


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def rank_of(value: ir.Value) -> int | None:
    """Number of axes, or None where unknown."""
    return None if value.shape is None else len(value.shape)


def top_consumers(value: ir.Value, graph: ir.Graph) -> list[ir.Node] | None:
    """Nodes of this graph that read the value; None where a subgraph reads it too."""
    nodes = list(dict.fromkeys(use.node for use in value.uses()))
    return nodes if all(node.graph is graph for node in nodes) else None


def only_consumer(value: ir.Value, graph: ir.Graph) -> ir.Node | None:
    """The one node that reads the value, or None (several readers, a graph output, a subgraph)."""
    nodes = top_consumers(value, graph)
    if nodes is None or len(nodes) != 1 or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return nodes[0]


def attr_int(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def attr_float(node: ir.Node, name: str, default: float) -> float:
    """A float attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def attr_ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list-of-integers attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def attr_string(node: ir.Node, name: str, default: str) -> str:
    """A string attribute, or its default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
