"""Weight-only quantization of MatMul and Gemm: blocks of 4 or 8 bits, float activations.

Written as MatMulNBits or MatMulBnb4 (onnxruntime), or as DequantizeLinear of int4 blocks (TensorRT).
Source: onnxruntime docs/ContribOperators.md, com.microsoft.MatMulNBits (layout and packing).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.edits import drop_unread, take_place
from qpipe.quant.graph import constant, input_at, name_of
from qpipe.quant.numbers import F32
from qpipe.quant.operators import is_transposed
from qpipe.quant.options import QuantOptions
from qpipe.quant.rendering.dynamic import plan_dynamic
from qpipe.quant.rendering.matmul import MICROSOFT
from qpipe.quant.rendering.render import forget_shapes, render
from qpipe.quant.rendering.tables import is_table, plan_tables, render_tables
from qpipe.quant.weights.blocks import check_block_size, cut, pack, quantize_blocks, split
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
        QuantizationError: the scheme has no kernel of that width or code, kernels take no blocks of that size, no node
            can be stored so, or weights are not finite.
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
    tables = plan_tables(model.graph, scheme, options or QuantOptions(), weights)
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

    Raises:
        QuantizationError: the code or the scheme does not take that rounding, GPTQ lacks vectors, or the plan names a
            node that the graph does not have.
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
    nodes, written = {node.name: node for node in graph}, _Written(level=accuracy_level)
    for spec in plan.weights:
        if is_table(spec, nodes):
            continue
        for name in spec.nodes:
            if name not in nodes:
                raise QuantizationError(f"the plan quantizes node {name!r}, which the graph does not have")
            vectors = _vectors(nodes[name], statistics) if rounding == "gptq" else None
            _replace(writer, nodes[name], spec, _Rounder(rounding, vectors), written)
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
            found = [hqq_blocks(split(part, spec.block_size, repeat_last=True), spec.bits) for part in cut(rows)]
            integers, scales, zeros = zip(*found, strict=True)
            return np.concatenate(integers), np.concatenate(scales), np.concatenate(zeros)
        return (*quantize_blocks(rows, spec.bits, spec.block_size, self.vectors), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """Weights that are in the graph already: layers that share one go on sharing it."""

    level: int
    """What MatMulNBits computes in."""
    parts: dict[tuple[str, bool, WeightSpec], tuple[tuple[int, int], list[ir.Value]]] = field(default_factory=dict)


def _replace(writer: Writer, node: ir.Node, spec: WeightSpec, rounder: _Rounder, written: _Written) -> None:
    graph, weight = writer.graph, node.inputs[1]
    assert weight is not None
    turned = not is_transposed(node)
    key = (spec.tensor, turned, replace(spec, nodes=()))
    if key not in written.parts or rounder.vectors is not None:
        array = np.asarray(constant(weight), np.float32)
        rows = np.ascontiguousarray(array.T if turned else array)
        parts = _parts(rows, spec, rounder)
        inputs = [writer.initializer(f"{node.name}/weight_{part}", array) for part, array in parts.items()]
        written.parts[key] = (rows.shape[0], rows.shape[1]), inputs
    sizes, inputs = written.parts[key]
    packed = _kernel(node, inputs, spec, sizes, written.level)
    graph.insert_before(node, packed)
    result = packed.outputs[0]
    bias = input_at(node, 2) if node.op_type == "Gemm" else None
    if bias is not None:
        result.name = writer.names.fresh(f"{node.name}/product")
        add = ir.node("Add", [result, bias], name=f"{node.name}/bias")
        graph.insert_before(node, add)
        result = add.outputs[0]
    take_place(node.outputs[0], result)
    graph.remove(node, safe=True)
    drop_unread(graph, weight)


def _parts(rows: F32, spec: WeightSpec, rounder: _Rounder) -> dict[str, NDArray[np.generic]]:
    """What the runtime's node reads of one weight [N, K], in the order of its inputs."""
    assert spec.block_size is not None
    if spec.dtype == "nf4":
        indices, largest = quantize_nf4(rows, spec.block_size)
        return {"packed": pack_nf4(indices), "scales": largest}
    integers, scale, zero = rounder.blocks(rows, spec)
    parts: dict[str, NDArray[np.generic]] = {"packed": pack(integers, spec.bits), "scales": scale.reshape(-1)}
    if zero is not None:
        parts["zero_points"] = pack(zero, spec.bits).reshape(-1)
    return parts


def _kernel(node: ir.Node, weights: list[ir.Value], spec: WeightSpec, sizes: tuple[int, int], level: int) -> ir.Node:
    """The runtime's node in place of one that reads a weight [N, K]; `sizes` are N and K."""
    assert spec.block_size is not None
    shape = {"K": sizes[1], "N": sizes[0], "block_size": spec.block_size}
    own = {"quant_type": QUANT_TYPE} if spec.dtype == "nf4" else {"bits": spec.bits, "accuracy_level": level}
    op = "MatMulBnb4" if spec.dtype == "nf4" else "MatMulNBits"
    inputs = [node.inputs[0], *weights]
    return ir.node(op, inputs, attributes={**shape, **own}, domain=MICROSOFT, name=node.name)
