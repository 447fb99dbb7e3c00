"""Which convolutions and matrix products really run in the type that was asked for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from qpipe.records.engine import FloatNode, NodeKernel, Placement
from qpipe_tensorrt.demands import FLOAT
from qpipe_tensorrt.layers import by_profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpipe_tensorrt.job import Demand
    from qpipe_tensorrt.layers import Layer


def place(demands: Sequence[Demand], layers: Sequence[Layer], operators: Mapping[str, str]) -> Placement | None:
    """Hold each demand against the layers of the finished engine; None where there is no layer dump.

    `operators` gives the ONNX operator of a node by name. A node counts as integer where it runs in the low precision
    that its graph asks for (Int8, FP8, Int4 weights, Half, BFloat16) in every optimization profile, as float otherwise.
    """
    if not layers:
        return None
    profiles = by_profile(layers)
    left, folded, done = [], [], 0
    for demand, *kernels in zip(demands, *(_kernels_of(demands, profile) for profile in profiles), strict=True):
        wrong = [layer for layer in kernels if layer is not None and not _satisfied(demand, layer)]
        if not any(kernels):
            folded.append(demand.node)
        elif not wrong:
            done += 1
        else:
            op = operators.get(demand.node, "MatMul")
            left.append(FloatNode(name=demand.node, op=op, reason=_why(demand, wrong[0], len(profiles))))
    return Placement(
        integer=done,
        float=len(left),
        elsewhere=0,
        left_in_float=tuple(left),
        kernels=_kernels(profiles[0]),
        notes=_notes(profiles, folded),
        nodes=_nodes(layers),
    )


def _kernels_of(demands: Sequence[Demand], layers: Sequence[Layer]) -> list[Layer | None]:
    """For each demand the layer that calculates it. Nodes that share a name are matched in order."""
    seen: Counter[str] = Counter()
    kernels = []
    for demand in demands:
        found = [layer for layer in layers if demand.node in layer.nodes]
        products = [layer for layer in found if layer.multiplies] or found
        index = min(seen[demand.node], len(products) - 1)
        seen[demand.node] += 1
        kernels.append(products[index] if products else None)
    return kernels


def _satisfied(demand: Demand, layer: Layer) -> bool:
    if demand.dtype == FLOAT:
        return False
    if demand.weight_only:
        return demand.dtype in (*layer.inputs, *layer.constants)
    return bool(layer.inputs) and layer.inputs[0] == demand.dtype


def _why(demand: Demand, layer: Layer, profiles: int) -> str:
    ran = layer.inputs[0] if layer.inputs else FLOAT
    if demand.dtype == FLOAT:
        return "its inputs are float32 in the graph"
    where = f" for profile {layer.profile}" if profiles > 1 else ""
    return f"the graph asks for {demand.dtype}, TensorRT built a {ran} kernel ({layer.kind}){where}"


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


def counts(profiles: Sequence[Sequence[Layer]]) -> dict[str, int]:
    """What one inference runs through: the most of any profile."""
    return {
        "engine_layers": max(len(layers) for layers in profiles),
        "engine_roundings": max(sum(layer.roundings for layer in layers) for layers in profiles),
        "kernels_rounding_twice": max(sum(layer.roundings > 1 for layer in layers) for layers in profiles),
        "engine_reformats": max(sum(layer.moves for layer in layers) for layers in profiles),
    }


def _notes(profiles: Sequence[Sequence[Layer]], folded: Sequence[str]) -> tuple[str, ...]:
    twice = dict.fromkeys(layer for layers in profiles for layer in layers if layer.roundings > 1)
    layers, roundings, doubled, moves = counts(profiles).values()
    notes = [
        f"{layers} layers, {roundings} roundings in generated kernels, {doubled} kernels that round more than once, "
        f"{moves} reformats" + (f" (the most of {len(profiles)} profiles)" if len(profiles) > 1 else "")
    ]
    notes += [f"rounds {layer.roundings} times: {', '.join(layer.nodes)}" for layer in twice]
    notes += [f"no kernel of their own (folded, or inside an LSTM or GRU): {', '.join(folded)}"] if folded else []
    return tuple(notes)
