"""Why a node that was meant to run in integers stayed in float, read from the Q/DQ graph."""

from __future__ import annotations

import onnx

from qpipe_onnxruntime.names import Wanted

_DTYPES = {
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.INT4: "int4",
    onnx.TensorProto.UINT4: "uint4",
    onnx.TensorProto.FLOAT8E4M3FN: "float8e4m3fn",
}


class Graph:
    """A graph indexed by what makes and what takes each tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = {node.name or node.output[0]: node for node in graph.node if node.output}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.takers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        self.dtypes = {tensor.name: tensor.data_type for tensor in graph.initializer}

    def dequantized(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes this tensor, if one does."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def dtype(self, dequantize: onnx.NodeProto) -> str:
        """Integer type that a DequantizeLinear reads, or an empty string where it is not written down."""
        zero_point = dequantize.input[2] if len(dequantize.input) > 2 else dequantize.input[0]
        return _DTYPES.get(self.dtypes.get(zero_point, 0), "")


def reason(graph: Graph, wanted: Wanted) -> str:
    """Why onnxruntime did not make an integer kernel of this node."""
    node = graph.nodes.get(wanted.name)
    if node is None:
        return "it is not in the quantized graph under its name, and no integer kernel carries a trace of it"
    if node.op_type == "LSTM":
        return "onnxruntime has an integer LSTM in dynamic quantization alone"
    if node.op_type in ("GRU", "RNN"):
        return f"onnxruntime has no integer kernel for {node.op_type}"
    return _inputs(graph, node) or _dtypes(graph, node) or _output(graph, node) or "onnxruntime did not fuse it"


def _inputs(graph: Graph, node: onnx.NodeProto) -> str:
    for place, name in zip(("input", "weight"), node.input[:2], strict=False):
        if graph.dequantized(name) is None:
            return f"no Q/DQ on its {place} '{name}'"
    return ""


def _dtypes(graph: Graph, node: onnx.NodeProto) -> str:
    if node.op_type == "ConvTranspose":
        return "onnxruntime has no integer kernel for ConvTranspose on the CPU"
    kinds = [graph.dtype(pair) for name in node.input[:2] if (pair := graph.dequantized(name)) is not None]
    if odd := [kind for kind in kinds if kind and kind not in ("int8", "uint8")]:
        return f"onnxruntime has no {node.op_type} kernel for {' × '.join(kinds)}" if odd else ""
    if kinds == ["int8", "uint8"]:
        return f"onnxruntime has no {node.op_type} kernel for signed activations × unsigned weights"
    return ""


def _output(graph: Graph, node: onnx.NodeProto) -> str:
    name = node.output[0]
    if name in graph.outputs:
        return f"its output '{name}' is an output of the model, so no quantizer can stand right after it"
    takers = graph.takers.get(name, [])
    if all(taker.op_type == "QuantizeLinear" for taker in takers) and len(takers) == 1:
        return ""
    if len(takers) > 1:
        return f"its output '{name}' is read by {len(takers)} nodes before it is quantized"
    if not takers:
        return f"nothing reads its output '{name}'"
    taker = takers[0]
    behind = graph.takers.get(taker.output[0], [])
    if any(node.op_type == "QuantizeLinear" for node in behind):
        return f"{taker.op_type} '{taker.name or taker.output[0]}' stands between it and its quantizer"
    return f"no Q/DQ on its output '{name}', which {taker.op_type} '{taker.name or taker.output[0]}' reads"
