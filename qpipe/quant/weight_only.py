"""Weight-only quantization: MatMulNBits with blocks of 4 or 8 bits, float activations.

Source: onnxruntime docs/ContribOperators.md, com.microsoft.MatMulNBits (layout and packing).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.quant.dynamic import plan_dynamic
from qpipe.quant.gptq import gptq_blocks
from qpipe.quant.graph import add_initializer, attr_int, constant, fresh_name, name_of
from qpipe.quant.matmul import MICROSOFT
from qpipe.quant.nf4 import QUANT_TYPE, pack_nf4, quantize_nf4
from qpipe.quant.numbers import F32, SMALLEST_SCALE
from qpipe.quant.options import QuantOptions
from qpipe.quant.render import forget_shapes
from qpipe.quant.statistics import Statistics
from qpipe.quant.tables import is_table, plan_tables, render_tables
from qpipe.records.quantization import QuantPlan, WeightSpec
from qpipe.records.scheme import Scheme

Rounding = Literal["nearest", "gptq"]
Code = Literal["linear", "nf4"]
SMALLEST_BLOCK = 16
"""MatMulNBits takes blocks of 16 and more, powers of two."""


def plan_weight_only(
    model: ir.Model,
    scheme: Scheme,
    *,
    bits: int = 4,
    block_size: int = 32,
    code: Code = "linear",
    options: QuantOptions | None = None,
) -> QuantPlan:
    """Choose the MatMuls and Gemms whose weights are stored in blocks of `bits` bits, linear or NF4.

    Raises:
        QuantizationError: the scheme has no kernel of that width, the block size is not one, or nothing fits.
    """
    if bits not in scheme.weight_only_bits:
        raise QuantizationError(
            f"scheme {scheme.name!r} has no weight-only kernel of {bits} bits",
            hint=f"widths: {', '.join(map(str, scheme.weight_only_bits)) or 'none'}",
        )
    if code == "nf4" and bits != 4:
        raise QuantizationError(f"NF4 has 4 bits, not {bits}")
    if block_size < SMALLEST_BLOCK or block_size & (block_size - 1):
        raise QuantizationError(f"block size {block_size} is not a power of two of at least {SMALLEST_BLOCK}")
    chosen = plan_dynamic(model, replace(scheme, dynamic_ops=("MatMul", "Gemm"), weight_bits=8, table_ops=()), options)
    weights = tuple(
        replace(spec, dtype="nf4" if code == "nf4" else f"uint{bits}", bits=bits, block_size=block_size)
        for spec in chosen.weights
    )
    tables = plan_tables(model.graph, scheme, options or QuantOptions())
    return replace(chosen, scheme=scheme, mode="weight-only", weights=(*weights, *tables))


def render_weight_only(
    model: ir.Model,
    plan: QuantPlan,
    *,
    rounding: Rounding = "nearest",
    statistics: Statistics | None = None,
    accuracy_level: int = 0,
) -> ir.Model:
    """The graph with the plan's MatMuls as MatMulNBits. `gptq` needs statistics with vectors of the inputs.

    `accuracy_level` 4 lets the kernel compute in int8; 0 leaves it float32.
    """
    if rounding == "gptq" and any(spec.dtype == "nf4" for spec in plan.weights):
        raise QuantizationError("GPTQ rounds to evenly spaced levels, not to NF4's", hint="use rounding 'nearest'")
    copy = model.clone()
    graph = copy.graph
    nodes = {node.name: node for node in graph}
    for spec in plan.weights:
        if is_table(spec, nodes):
            continue
        for name in spec.nodes:
            if name not in nodes:
                raise QuantizationError(f"the plan quantizes node {name!r}, which the graph does not have")
            _replace(graph, nodes[name], spec, _vectors(nodes[name], rounding, statistics), accuracy_level)
    render_tables(graph, plan)
    copy.opset_imports.setdefault(MICROSOFT, 1)
    forget_shapes(graph)
    return copy


def _vectors(node: ir.Node, rounding: Rounding, statistics: Statistics | None) -> F32 | None:
    if rounding == "nearest" or node.inputs[0] is None:
        return None
    item = statistics.get(name_of(node.inputs[0])) if statistics is not None else None
    if item is None or not item.vectors.size:
        raise QuantizationError(
            f"node {node.name!r}: GPTQ needs vectors of its input, which the statistics do not have",
            hint="put `calibrate` before `weight-only`, or use rounding 'nearest'",
        )
    return item.vectors


def _replace(graph: ir.Graph, node: ir.Node, spec: WeightSpec, vectors: F32 | None, accuracy_level: int) -> None:
    weight = node.inputs[1]
    assert weight is not None
    assert spec.block_size is not None
    array = np.asarray(constant(weight), np.float32)
    rows = array if node.op_type == "Gemm" and attr_int(node, "transB", 0) else array.T
    packed = _kernel(graph, node, spec, np.ascontiguousarray(rows), vectors=vectors, accuracy_level=accuracy_level)
    graph.insert_before(node, packed)
    result, old = packed.outputs[0], node.outputs[0]
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is not None:
        result.name = fresh_name(graph, f"{node.name}/product")
        add = ir.node("Add", [result, bias], name=f"{node.name}/bias")
        graph.insert_before(node, add)
        result = add.outputs[0]
    name, shape, dtype = old.name, old.shape, old.dtype
    old.replace_all_uses_with(result, replace_graph_outputs=old.is_graph_output())
    graph.remove(node, safe=True)
    result.name, result.shape = name, shape
    result.dtype = dtype or ir.DataType.FLOAT
    if not weight.uses() and not weight.is_graph_output():
        graph.initializers.pop(name_of(weight), None)


def _kernel(
    graph: ir.Graph, node: ir.Node, spec: WeightSpec, rows: F32, *, vectors: F32 | None, accuracy_level: int
) -> ir.Node:
    """The runtime's node for one weight [N, K]."""
    data = node.inputs[0]
    assert data is not None
    assert spec.block_size is not None
    sizes = {"K": rows.shape[1], "N": rows.shape[0], "block_size": spec.block_size}
    if spec.dtype == "nf4":
        indices, largest = quantize_nf4(rows, spec.block_size)
        op, attributes = "MatMulBnb4", {**sizes, "quant_type": QUANT_TYPE}
        stored, scales = pack_nf4(indices), largest
    else:
        integers, scale = quantize_blocks(rows, spec.bits, spec.block_size, vectors)
        op, attributes = "MatMulNBits", {**sizes, "bits": spec.bits, "accuracy_level": accuracy_level}
        stored, scales = pack(integers, spec.bits), scale.reshape(-1)
    inputs = [
        data,
        add_initializer(graph, fresh_name(graph, f"{node.name}/weight_packed"), stored),
        add_initializer(graph, fresh_name(graph, f"{node.name}/weight_scales"), scales),
    ]
    return ir.node(op, inputs, attributes=attributes, domain=MICROSOFT, name=node.name)


def quantize_blocks(rows: F32, bits: int, block_size: int, vectors: F32 | None = None) -> tuple[NDArray[np.uint8], F32]:
    """(integers [N, blocks, block], scales [N, blocks]) of weights [N, K], symmetric around 2^(bits−1).

    The last block is padded with zeros. With `vectors` [n, K] of the input, rounding errors are carried over to the
    columns that are still to come (GPTQ); without, each weight goes to the nearest step.
    """
    count, width = rows.shape
    blocks = -(-width // block_size)
    padded = np.zeros((count, blocks * block_size), np.float32)
    padded[:, :width] = rows
    scale = block_scales(padded.reshape(count, blocks, block_size), bits)
    middle = 2 ** (bits - 1)
    if vectors is not None:
        integers = gptq_blocks(rows, scale, block_size, bits, vectors)
        whole = np.full(padded.shape, middle, np.uint8)
        whole[:, :width] = integers
        return whole.reshape(count, blocks, block_size), scale
    steps = np.rint(padded.reshape(count, blocks, block_size) / scale[:, :, None]) + middle
    return np.clip(steps, 0, 2 * middle - 1).astype(np.uint8), scale


def block_scales(blocks: F32, bits: int) -> F32:
    """Per block, the scale with the smallest squared error among some that clip the largest weight."""
    middle = 2 ** (bits - 1)
    signed = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    base = np.where(np.abs(signed) <= middle * SMALLEST_SCALE, 1.0, -signed.astype(np.float64) / middle)
    best, error = base, np.full(base.shape, np.inf)
    for shrink in (1.0, 0.95, 0.9, 0.85, 0.8) if bits == 4 else (1.0,):
        tried = base * shrink
        steps = np.clip(np.rint(blocks / tried[:, :, None]), -middle, middle - 1)
        found = np.square(steps * tried[:, :, None] - blocks).sum(axis=2)
        best, error = np.where(found < error, tried, best), np.minimum(found, error)
    return best.astype(np.float32)


def pack(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """[N, blocks, block] as MatMulNBits stores it: two 4-bit numbers in a byte, the first one low."""
    if bits == 8:
        return integers
    return (integers[:, :, 0::2] | (integers[:, :, 1::2] << 4)).astype(np.uint8)
