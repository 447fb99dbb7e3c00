"""Which node of the float graph a kernel of the optimized graph came from.

onnxruntime keeps no record of it. Fused nodes keep the name of the node they replace with a suffix (`_token_7`,
`/MatMulAddFusion`, `_quant`), layout transforms name a node after its output (`…_nchwc`), and quantized weights are
named after the float ones: each is tried in turn, longest name first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import onnx

QUANTIZABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
_CARRIERS = ("Identity", "Transpose", "Reshape", "Cast", "DequantizeLinear", "Unsqueeze", "Squeeze")
_CAST = "InsertedPrecisionFreeCast_"
"""How onnxruntime marks tensors that it computes in float32 instead of float16."""
_ABSORBED = ("Relu", "Clip", "BatchNormalization", "Add", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A node of the float graph with a weight: one that could run in integers."""

    name: str
    """Its name, or that of its output where it has none."""
    op: str
    weight: str
    outputs: tuple[str, ...]
    """Its output, and those of the operators after it that a kernel may absorb."""


def quantizable(graph: onnx.GraphProto) -> tuple[Wanted, ...]:
    """Nodes with a weight: an initializer, a constant, or one behind shape-only operators. Top level only."""
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {tensor.values.name for tensor in graph.sparse_initializer}
    produced = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    found = []
    for node in graph.node:
        if node.op_type not in QUANTIZABLE or node.domain not in ("", "ai.onnx") or len(node.input) < 2:
            continue
        if weight := _weight(node.input[1], constants, produced) or _weight(node.input[0], constants, produced):
            outputs = _absorbed(node.output[0], consumers)
            found.append(Wanted(name=node.name or node.output[0], op=node.op_type, weight=weight, outputs=outputs))
    return tuple(found)


def _weight(name: str, constants: set[str], produced: dict[str, onnx.NodeProto]) -> str:
    """The initializer (or constant) behind this input, or an empty string where it is an activation."""
    while name not in constants:
        node = produced.get(name)
        if node is None:
            return ""
        if node.op_type == "Constant":
            return name
        if node.op_type not in _CARRIERS:
            return ""
        name = node.input[0]
    return name


def _absorbed(output: str, consumers: dict[str, list[onnx.NodeProto]]) -> tuple[str, ...]:
    outputs = [output]
    while len(after := consumers.get(outputs[-1], [])) == 1 and after[0].op_type in _ABSORBED:
        outputs.append(after[0].output[0])
    return tuple(outputs)


Known = Mapping[str, Wanted | None]
"""Names of the float graph, with the node that each points to; None where it points to no or to several."""


def assign(
    graph: onnx.GraphProto, kernels: Iterable[onnx.NodeProto]
) -> tuple[tuple[Wanted, onnx.NodeProto | None], ...]:
    """Each quantizable node of the float graph with its kernel, or None where none carries a trace of it."""
    nodes = quantizable(graph)
    by_node = _known((node.name or "" for node in graph.node), [((node.name,), node) for node in nodes])
    by_weight = _known((tensor.name for tensor in graph.initializer), [((node.weight,), node) for node in nodes])
    values = (name for node in graph.node for name in node.output)
    by_output = _known(values, [(node.outputs, node) for node in nodes])
    left = list(kernels)
    found: dict[Wanted, onnx.NodeProto] = {}
    # A clue binds a kernel to one node; only what is left looks at the next, weaker clue.
    for known, names in ((by_node, _own_name), (by_weight, _inputs), (by_output, _name_and_outputs)):
        rest = []
        for kernel in left:
            node = next((node for name in names(kernel) if (node := _stem(name, known))), None)
            if node is None or node in found:
                rest.append(kernel)
            else:
                found[node] = kernel
        left = rest
    return tuple((node, found.get(node)) for node in nodes)


def trace(graph: onnx.GraphProto, optimized: onnx.GraphProto) -> tuple[tuple[str, onnx.NodeProto], ...]:
    """Nodes of the float graph without a weight, by name, with the one kernel that carries the name of each.

    A node that was split into several kernels, of which none has its very name, is left out.
    """
    weighted = {node.name for node in quantizable(graph)}
    every = {node.name for node in graph.node if node.name} - weighted
    found: dict[str, list[onnx.NodeProto]] = {}
    for kernel in optimized.node:
        if (name := _longest(kernel.name, every)) is not None:
            found.setdefault(name, []).append(kernel)
    chosen = ((name, [one for one in kernels if one.name == name] or kernels) for name, kernels in found.items())
    return tuple((name, kernels[0]) for name, kernels in chosen if len(kernels) == 1)


def _known(every: Iterable[str], pointers: list[tuple[tuple[str, ...], Wanted]]) -> Known:
    known: dict[str, Wanted | None] = dict.fromkeys(every)
    count = Counter(name for names, _ in pointers for name in names)
    for names, node in pointers:
        known.update({name: node if count[name] == 1 else None for name in names})
    return known


def _stem(name: str, known: Known) -> Wanted | None:
    """What the longest known stem of `name` points to."""
    found = _longest(name, known)
    return None if found is None else known[found]


def _longest(name: str, known: Container[str]) -> str | None:
    """The longest known stem of `name`; a stem ends where no letter or digit goes on."""
    name = name.removeprefix(_CAST)
    for end in range(len(name), 0, -1):
        if (end == len(name) or not name[end].isalnum()) and name[:end] in known:
            return name[:end]
    return None


def _own_name(kernel: onnx.NodeProto) -> tuple[str, ...]:
    return (kernel.name,)


def _inputs(kernel: onnx.NodeProto) -> tuple[str, ...]:
    return tuple(kernel.input)


def _name_and_outputs(kernel: onnx.NodeProto) -> tuple[str, ...]:
    return (kernel.name, *kernel.output)
