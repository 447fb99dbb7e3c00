"""Nodes of a static plan whose weights alone are quantized: int4 in blocks, where the recipe asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.errors import QuantizationError
from qpipe.quant.graph import constant, input_at, name_of
from qpipe.quant.operators import channel_axis, finite, infinite_weights
from qpipe.quant.options import QuantOptions
from qpipe.quant.weights.blocks import SMALLEST_BLOCK, check_block_size
from qpipe.quant.weights.int4 import reduced_axis
from qpipe.records.quantization import WeightSpec
from qpipe.records.scheme import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """What becomes int4 in blocks."""

    nodes: frozenset[str]
    weights: tuple[WeightSpec, ...]
    notes: tuple[str, ...]
    """Nodes that cannot be int4 although the recipe asks for it, and why: they are quantized like all others."""


def plan_blocked(graph: ir.Graph, scheme: Scheme, options: QuantOptions) -> Blocked:
    """Specifications of the weights that overrides with `weights: int4` name.

    Raises:
        QuantizationError: the scheme takes no int4 blocks, kernels take none of that size, or weights are not finite.
    """
    sizes: dict[str, int] = {}
    notes: list[str] = []
    for node in graph:
        size = options.int4_block(node) if node.op_type in scheme.ops and not options.keep(node) else None
        if size is None:
            continue
        if "DequantizeLinear" not in scheme.block_kernels:
            raise QuantizationError(
                f"scheme {scheme.name!r} takes no int4 weights in blocks, which the recipe asks for {node.name!r}",
                hint="leave `weights: int4` out of the override",
            )
        check_block_size(size)
        if reason := int4_refusal(node, scheme):
            notes.append(f"node {node.name!r} is not int4: {reason}")
        else:
            sizes[node.name or ""] = size
    return Blocked(nodes=frozenset(sizes), weights=_weights(graph, sizes), notes=tuple(notes))


def _weights(graph: ir.Graph, sizes: dict[str, int]) -> tuple[WeightSpec, ...]:
    readers: dict[tuple[str, int | None, int], list[str]] = {}
    for node in graph:
        name, weight = node.name or "", input_at(node, 1)
        if name in sizes and weight is not None:
            readers.setdefault((name_of(weight), channel_axis(node), sizes[name]), []).append(name)
    return tuple(
        WeightSpec(
            tensor=tensor,
            dtype="int4",
            bits=4,
            symmetric=True,
            axis=axis,
            block_size=size,
            method="mse",
            nodes=tuple(names),
        )
        for (tensor, axis, size), names in readers.items()
    )


def int4_refusal(node: ir.Node, scheme: Scheme) -> str:
    """Why the weights of a node cannot be int4 in blocks, or an empty string.

    Raises:
        QuantizationError: its weights are not finite.
    """
    array = constant(input_at(node, 1))
    if node.op_type not in scheme.block_ops or array is None:
        return f"this scheme takes int4 blocks for constant weights of {', '.join(scheme.block_ops)}"
    if array.dtype != np.float32 or (node.op_type != "Conv" and array.ndim != 2):
        return "its weights are not a float32 matrix"
    if array.shape[reduced_axis(channel_axis(node))] < SMALLEST_BLOCK:
        return f"fewer than {SMALLEST_BLOCK} weights would share a scale"
    if not finite(node):
        raise infinite_weights(node)
    return ""
