"""Which convolutions and matrix products really run in the type that was asked for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from qpipe.records.engine import FloatNode, NodeKernel, Placement
from qpipe_tensorrt.demands import FLOAT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpipe_tensorrt.job import Demand
    from qpipe_tensorrt.layers import Layer


def place(demands: Sequence[Demand], layers: Sequence[Layer], operators: Mapping[str, str]) -> Placement | None:
    """Hold each demand against the layers of the finished engine; None where there is no layer dump.

    `operators` gives the ONNX operator of a node by name. A node counts as integer where it runs in the low precision
    that its graph asks for (Int8, FP8, Int4 weights, Half, BFloat16), as float otherwise.
    """
    if not layers:
        return None
    left, folded, done = [], [], 0
    for demand, layer in _pairs(demands, layers):
        if layer is None:
            folded.append(demand.node)
        elif _satisfied(demand, layer):
            done += 1
        else:
            op = operators.get(demand.node, "MatMul")
            left.append(FloatNode(name=demand.node, op=op, reason=_why(demand, layer)))
    return Placement(
        integer=done,
        float=len(left),
        elsewhere=0,
        left_in_float=tuple(left),
        kernels=_kernels(layers),
        notes=_notes(layers, folded),
        nodes=_nodes(layers),
    )


def _pairs(demands: Sequence[Demand], layers: Sequence[Layer]) -> list[tuple[Demand, Layer | None]]:
    """Each demand with the layer that calculates it. Nodes that share a name are matched in order."""
    seen: Counter[str] = Counter()
    pairs = []
    for demand in demands:
        found = [layer for layer in layers if demand.node in layer.nodes]
        products = [layer for layer in found if layer.multiplies] or found
        index = min(seen[demand.node], len(products) - 1)
        seen[demand.node] += 1
        pairs.append((demand, products[index] if products else None))
    return pairs


def _satisfied(demand: Demand, layer: Layer) -> bool:
    if demand.dtype == FLOAT:
        return False
    if demand.weight_only:
        return demand.dtype in (*layer.inputs, *layer.constants)
    return bool(layer.inputs) and layer.inputs[0] == demand.dtype


def _why(demand: Demand, layer: Layer) -> str:
    ran = layer.inputs[0] if layer.inputs else FLOAT
    if demand.dtype == FLOAT:
        return "its inputs are float32 in the graph"
    return f"the graph asks for {demand.dtype}, TensorRT built a {ran} kernel ({layer.kind})"


def _kernels(layers: Sequence[Layer]) -> tuple[tuple[str, int], ...]:
    """Kinds of kernels with the type of their first input."""
    return tuple(sorted(Counter(_kernel(layer) for layer in layers).items()))


def _kernel(layer: Layer) -> str:
    """Its kind with the type of its first input."""
    return f"{layer.kind} {layer.inputs[0]}" if layer.inputs else layer.kind


def _nodes(layers: Sequence[Layer]) -> tuple[NodeKernel, ...]:
    """The kernel of each ONNX node; the one that multiplies where several were made from it."""
    found: dict[str, Layer] = {}
    for layer in layers:
        for node in layer.nodes:
            if node not in found or (layer.multiplies and not found[node].multiplies):
                found[node] = layer
    return tuple(NodeKernel(node=node, kernel=_kernel(layer)) for node, layer in found.items())


def _notes(layers: Sequence[Layer], folded: Sequence[str]) -> tuple[str, ...]:
    twice = [layer for layer in layers if layer.roundings > 1]
    notes = [
        f"{len(layers)} layers, {sum(layer.roundings for layer in layers)} roundings in generated kernels, "
        f"{len(twice)} kernels that round more than once, {sum(layer.moves for layer in layers)} reformats"
    ]
    notes += [f"rounds {layer.roundings} times: {', '.join(layer.nodes)}" for layer in twice]
    notes += [f"no kernel of their own (folded, or inside an LSTM or GRU): {', '.join(folded)}"] if folded else []
    return tuple(notes)
