"""Weight-only quantization of MatMul and Gemm: blocks of 4 or 8 bits, float activations.

Written as MatMulNBits or MatMulBnb4 (onnxruntime), or as DequantizeLinear of int4 blocks (TensorRT).
Source: onnxruntime docs/ContribOperators.md, com.microsoft.MatMulNBits (layout and packing).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.graph import attr_int, constant, name_of
from qpipe.quant.numbers import F32
from qpipe.quant.options import QuantOptions
from qpipe.quant.rendering.dynamic import plan_dynamic
from qpipe.quant.rendering.matmul import MICROSOFT
from qpipe.quant.rendering.render import forget_shapes, render
from qpipe.quant.rendering.tables import is_table, plan_tables, render_tables
from qpipe.quant.weights.blocks import check_block_size, pack, quantize_blocks, split
from qpipe.quant.weights.hqq import hqq_blocks
from qpipe.quant.weights.nf4 import QUANT_TYPE, pack_nf4, quantize_nf4
from qpipe.quant.writer import Writer
from qpipe.records.quantization import QuantPlan, WeightSpec
from qpipe.records.scheme import Scheme

Rounding = Literal["nearest", "gptq", "hqq"]
Code = Literal["linear", "nf4"]
Array = NDArray[np.uint8]


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
        QuantizationError: the scheme has no kernel of that width or code, the block size is not one, or nothing fits.
    """
    if bits not in scheme.weight_only_bits:
        raise QuantizationError(
            f"scheme {scheme.name!r} has no weight-only kernel of {bits} bits",
            hint=f"widths: {', '.join(map(str, scheme.weight_only_bits)) or 'none'}",
        )
    if code not in scheme.weight_only_codes:
        raise QuantizationError(
            f"scheme {scheme.name!r} has no weight-only kernel for {code} codes",
            hint=f"its codes: {', '.join(scheme.weight_only_codes)}",
        )
    if code == "nf4" and bits != 4:
        raise QuantizationError(f"NF4 has 4 bits, not {bits}")
    check_block_size(block_size)
    dtype = "nf4" if code == "nf4" else f"uint{bits}" if _as_kernels(scheme) else f"int{bits}"
    chosen = plan_dynamic(model, replace(scheme, dynamic_ops=("MatMul", "Gemm"), weight_bits=8, table_ops=()), options)
    weights = tuple(replace(spec, dtype=dtype, bits=bits, block_size=block_size) for spec in chosen.weights)
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
    """The graph with the plan's weights in the form that the scheme's runtime takes.

    `gptq` needs statistics with vectors of the inputs. `accuracy_level` 4 lets MatMulNBits compute in int8; 0 leaves
    it float32.
    """
    if rounding != "nearest" and any(spec.dtype == "nf4" for spec in plan.weights):
        raise QuantizationError(
            f"{rounding.upper()} rounds to evenly spaced levels, not to NF4's", hint="use rounding 'nearest'"
        )
    if not _as_kernels(plan.scheme):
        if rounding != "nearest":
            raise QuantizationError(
                f"{rounding.upper()} is for MatMulNBits, which scheme {plan.scheme.name!r} does not take",
                hint="use rounding 'nearest'",
            )
        return render(model, plan)
    copy = model.clone()
    graph, writer = copy.graph, Writer(copy.graph)
    nodes = {node.name: node for node in graph}
    for spec in plan.weights:
        if is_table(spec, nodes):
            continue
        for name in spec.nodes:
            if name not in nodes:
                raise QuantizationError(f"the plan quantizes node {name!r}, which the graph does not have")
            vectors = _vectors(nodes[name], statistics) if rounding == "gptq" else None
            _replace(writer, nodes[name], spec, _Rounder(rounding, vectors), accuracy_level)
    render_tables(graph, plan)
    copy.opset_imports.setdefault(MICROSOFT, 1)
    forget_shapes(graph)
    return copy


def _as_kernels(scheme: Scheme) -> bool:
    """Whether the runtime takes blocks as an operator of its own rather than as DequantizeLinear."""
    return scheme.block_kernels[:1] == ("MatMulNBits",)


def _vectors(node: ir.Node, statistics: Statistics | None) -> F32:
    data = node.inputs[0]
    item = statistics.get(name_of(data)) if statistics is not None and data is not None else None
    if item is None or not item.vectors.size:
        hint = "put `calibrate` before `weight-only`"
        if item is not None:  # beside a convolution: its channels are on axis 1
            hint = f"leave the node out: `keep_float: [{node.name}]`"
        raise QuantizationError(
            f"node {node.name!r}: GPTQ needs vectors of its input, which the statistics do not have",
            hint=f"{hint}, or use rounding 'nearest'",
        )
    return item.vectors


@dataclass(frozen=True, slots=True)
class _Rounder:
    """How weights [N, K] become integers."""

    rounding: Rounding
    vectors: F32 | None

    def blocks(self, rows: F32, spec: WeightSpec) -> tuple[Array, F32, Array | None]:
        """(integers [N, blocks, block], scales [N, blocks], zero points [N, blocks] where they are not the middle)."""
        assert spec.block_size is not None
        if self.rounding == "hqq":
            return hqq_blocks(split(rows, spec.block_size, repeat_last=True), spec.bits)
        return (*quantize_blocks(rows, spec.bits, spec.block_size, self.vectors), None)


def _replace(writer: Writer, node: ir.Node, spec: WeightSpec, rounder: _Rounder, accuracy_level: int) -> None:
    graph, weight = writer.graph, node.inputs[1]
    assert weight is not None
    assert spec.block_size is not None
    array = np.asarray(constant(weight), np.float32)
    rows = array if node.op_type == "Gemm" and attr_int(node, "transB", 0) else array.T
    packed = _kernel(writer, node, spec, np.ascontiguousarray(rows), rounder=rounder, accuracy_level=accuracy_level)
    graph.insert_before(node, packed)
    result, old = packed.outputs[0], node.outputs[0]
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is not None:
        result.name = writer.names.fresh(f"{node.name}/product")
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
    writer: Writer, node: ir.Node, spec: WeightSpec, rows: F32, *, rounder: _Rounder, accuracy_level: int
) -> ir.Node:
    """The runtime's node for one weight [N, K]."""
    data = node.inputs[0]
    assert data is not None
    assert spec.block_size is not None
    sizes = {"K": rows.shape[1], "N": rows.shape[0], "block_size": spec.block_size}
    parts: dict[str, NDArray[np.generic]]
    attributes: dict[str, int]
    if spec.dtype == "nf4":
        indices, largest = quantize_nf4(rows, spec.block_size)
        op, attributes = "MatMulBnb4", {**sizes, "quant_type": QUANT_TYPE}
        parts = {"packed": pack_nf4(indices), "scales": largest}
    else:
        integers, scale, zero = rounder.blocks(rows, spec)
        op, attributes = "MatMulNBits", {**sizes, "bits": spec.bits, "accuracy_level": accuracy_level}
        parts = {"packed": pack(integers, spec.bits), "scales": scale.reshape(-1)}
        if zero is not None:
            parts["zero_points"] = pack(zero, spec.bits).reshape(-1)
    inputs = [writer.initializer(f"{node.name}/weight_{part}", array) for part, array in parts.items()]
    return ir.node(op, [data, *inputs], attributes=attributes, domain=MICROSOFT, name=node.name)
