"""Placement: which quantizable nodes onnxruntime really runs as integer kernels, and why the others stayed float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from qpipe.records.engine import FloatNode, NodeKernel, Placement
from qpipe.records.quantization import QuantPlan
from qpipe_onnxruntime.names import Wanted, assign, trace
from qpipe_onnxruntime.reasons import Graph, reason

INTEGER = frozenset(
    {
        *("QLinearConv", "ConvInteger", "QLinearConvTranspose", "QGemm", "QLinearMatMul", "MatMulInteger"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"),
    }
)
"""Operators that multiply integer weights. Source: onnxruntime docs/OperatorKernels.md, CPU provider."""
BLOCKS = frozenset({"MatMulNBits", "MatMulBnb4"})
"""Operators that read weights in blocks of integers or codes: most of them to multiply floats."""
_INT8_LEVEL = 4
"""`accuracy_level` at which MatMulNBits rounds its input to int8 and multiplies integers; below it multiplies floats.
Source: onnxruntime docs/ContribOperators.md, com.microsoft.MatMulNBits."""
FLOATING = frozenset(
    {
        *("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"),
        *("FusedMatMulActivation", "Attention", "MultiHeadAttention", "LSTM", "GRU", "RNN"),
    }
)
"""Operators that multiply float weights."""
_HALVES = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """One quantizable node and the kernel that runs it, where one was found."""

    wanted: Wanted
    kernel: onnx.NodeProto | None

    @property
    def integer(self) -> bool:
        return self.kernel is not None and (self.kernel.op_type in INTEGER or _level(self.kernel) == _INT8_LEVEL)


def read_placement(
    *,
    float_graph: onnx.GraphProto,
    deployable: onnx.GraphProto,
    optimized: onnx.GraphProto,
    plan: QuantPlan | None,
    quantized: bool,
    built_on: str,
    target_arch: str,
) -> Placement:
    """What runs as what in the optimized graph.

    Quantizable are the Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN nodes of the float graph that have a
    weight. Where nothing is `quantized`, a kernel in float16 counts as the low precision that was asked for. A node
    that cannot be found in the optimized graph counts as float.
    """
    kernels = [node for node in optimized.node if node.op_type in INTEGER | BLOCKS | FLOATING]
    found = [_Found(wanted=wanted, kernel=kernel) for wanted, kernel in assign(float_graph, kernels)]
    dtypes = {tensor.name: tensor.data_type for tensor in optimized.initializer}
    low = [item for item in found if item.integer or (not quantized and _float16(item.kernel, dtypes))]
    rest = [item for item in found if item not in low]
    return Placement(
        integer=len(low),
        float=len(rest),
        elsewhere=0,  # a session on another provider than asked was refused before
        left_in_float=_explain(rest, deployable, float_graph, plan, quantized=quantized),
        kernels=tuple(Counter(_label(node) for node in optimized.node).most_common()),
        notes=(*_stored(deployable), *_notes(found, dtypes, built_on, target_arch)),
        nodes=_nodes(found, float_graph, optimized),
    )


def _nodes(found: list[_Found], float_graph: onnx.GraphProto, optimized: onnx.GraphProto) -> tuple[NodeKernel, ...]:
    """The kernel of each node, as far as names tell."""
    pairs = [(item.wanted.name, item.kernel) for item in found if item.kernel is not None]
    pairs += _fused(found, float_graph, optimized)
    return tuple(NodeKernel(node=name, kernel=_label(node)) for name, node in (*pairs, *trace(float_graph, optimized)))


def _fused(
    found: list[_Found], float_graph: onnx.GraphProto, optimized: onnx.GraphProto
) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Nodes behind a weighted one that another kernel does too.

    That is the weighted one's, as its attribute `activation` says, or of a Relu or Clip the quantizer behind it, which
    saturates at the same values. What has a kernel of its own is told by its name.
    """
    makers = {name: node for node in float_graph.node for name in node.output}
    readers = {name: node for node in optimized.node for name in node.input}
    for item in found:
        if item.kernel is None:
            continue
        does = next((one.s.decode() for one in item.kernel.attribute if one.name == "activation"), "")
        behind = [makers[name] for name in item.wanted.outputs[1:]]
        ends = next((at for at, node in enumerate(behind, 1) if node.op_type == does), 0)
        yield from ((node.name or node.output[0], item.kernel) for node in behind[:ends])
        quantizer = _behind(item.kernel, readers)
        if not ends and behind and behind[0].op_type in ("Relu", "Clip") and quantizer.op_type == "QuantizeLinear":
            yield behind[0].name or behind[0].output[0], quantizer


def _behind(kernel: onnx.NodeProto, readers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto:
    """What reads a kernel's output, behind those that only move it."""
    node = readers.get(kernel.output[0], kernel)
    while node.op_type in ("Transpose", "ReorderOutput") and node.output[0] in readers:
        node = readers[node.output[0]]
    return node


def _explain(
    rest: list[_Found],
    deployable: onnx.GraphProto,
    float_graph: onnx.GraphProto,
    plan: QuantPlan | None,
    *,
    quantized: bool,
) -> tuple[FloatNode, ...]:
    """Why each of these stayed in float; nothing where float is what was asked for."""
    weights = {tensor.name: tensor.data_type for tensor in float_graph.initializer}
    half = any(weights.get(item.wanted.weight) in _HALVES for item in rest)
    if not quantized and not half:
        return ()
    stored = stored_halves(float_graph)
    planned = {**_weights_alone(plan), **_left(plan)} if plan else {}
    graph = Graph(deployable)
    return tuple(
        FloatNode(
            name=item.wanted.name,
            op=item.wanted.op,
            reason=planned.get(item.wanted.name)
            or _widened(item.kernel)
            or (_reason(graph, item.wanted, plan) if quantized else _in_float32(item.wanted, stored)),
        )
        for item in rest
    )


def _level(kernel: onnx.NodeProto) -> int:
    return next((one.i for one in kernel.attribute if one.name == "accuracy_level"), 0)


def _widened(kernel: onnx.NodeProto | None) -> str:
    """Why an operator that reads small weights is no integer kernel; empty for all others."""
    if kernel is None or kernel.op_type not in BLOCKS:
        return ""
    level = f" (accuracy_level {_INT8_LEVEL}: in int8)" if kernel.op_type == "MatMulNBits" else ""
    return f"{kernel.op_type} widens its weights at every run: it computes in float32{level}"


def _reason(graph: Graph, wanted: Wanted, plan: QuantPlan | None) -> str:
    """Q/DQ pairs explain a static plan alone: the others write the runtime's own operators for the nodes they take."""
    if plan is None or plan.mode == "static":
        return reason(graph, wanted)
    if any(choice.node == wanted.name for choice in plan.nodes):
        return f"no integer kernel carries a trace of it, though the {plan.mode} plan has it"
    return f"{plan.mode} quantization leaves {wanted.op} in float on this target"


def _in_float32(wanted: Wanted, stored: Mapping[str, str]) -> str:
    """Why a node of a half-precision recipe computes in float32."""
    if wanted.weight in stored:
        return f"its weights are stored in {stored[wanted.weight]} and read as float32: this target has no such kernels"
    return "its weights stay float32" if stored else "no float16 kernel on this CPU: it computes in float32"


def stored_halves(graph: onnx.GraphProto) -> dict[str, str]:
    """The half-precision weights of a graph that reads all of them as float32, and the type of each; else nothing."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def widened(name: str) -> bool:
        return all(
            _to_float32(node) or (node.op_type == "Gather" and name == node.input[0] and widened(node.output[0]))
            for node in readers.get(name, [])
        )

    halves = {tensor.name: _HALVES[tensor.data_type] for tensor in graph.initializer if tensor.data_type in _HALVES}
    return halves if all(widened(name) for name in halves) else {}


def _to_float32(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        one.name == "to" and one.i == onnx.TensorProto.FLOAT for one in node.attribute
    )


def _stored(graph: onnx.GraphProto) -> tuple[str, ...]:
    """So that nobody takes a half-precision file for half-precision arithmetic."""
    kinds = Counter(stored_halves(graph).values())
    return tuple(
        f"{count} weights are stored in {kind} and computed in float32: this target has no {kind} kernels; "
        "the file is smaller, nothing is faster"
        for kind, count in kinds.items()
    )


def _left(plan: QuantPlan) -> dict[str, str]:
    return {choice.node: choice.reason for choice in plan.nodes if not choice.quantized}


def _weights_alone(plan: QuantPlan) -> dict[str, str]:
    """Nodes whose weights the plan stores in integers without an integer kernel to read them."""
    whys = {
        "kmeans": "its weights are k-means codes, decoded at load: it computes in float32",
        "int4": "its weights are int4, decoded at every run: it computes in float32",
    }
    return {node: whys[spec.dtype] for spec in plan.weights if spec.dtype in whys for node in spec.nodes}


def _notes(found: list[_Found], dtypes: Mapping[str, int], built_on: str, target_arch: str) -> tuple[str, ...]:
    notes = []
    if built_on != target_arch:
        notes.append(
            f"read from the graph as onnxruntime optimizes it on {built_on}, not on the target's {target_arch}"
        )
    if lost := [item.wanted.name for item in found if item.kernel is None]:
        shown = ", ".join(lost[:5]) + (" …" if len(lost) > 5 else "")
        notes.append(f"{len(lost)} nodes are not found in the optimized graph and count as float: {shown}")
    signed = sum(_signed_activations(item.kernel, dtypes) for item in found)
    if built_on == "x86_64" and signed:
        notes.append(f"{signed} kernels take int8 activations: on x86-64 these are slow, use uint8 activations")
    return tuple(notes)


def _float16(kernel: onnx.NodeProto | None, dtypes: Mapping[str, int]) -> bool:
    """Whether a float kernel multiplies float16 weights."""
    if kernel is None:
        return False
    return any(dtypes.get(name) == onnx.TensorProto.FLOAT16 for name in kernel.input)


def _signed_activations(kernel: onnx.NodeProto | None, dtypes: Mapping[str, int]) -> bool:
    """Whether the zero point of its activations (third input of the QLinear family and QGemm) is int8."""
    quantized = ("QLinearConv", "QLinearMatMul", "QGemm")
    if kernel is None or kernel.op_type not in quantized or len(kernel.input) < 3:
        return False
    return dtypes.get(kernel.input[2]) == onnx.TensorProto.INT8


def _label(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
