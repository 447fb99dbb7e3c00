"""Weights as indices of a k-means codebook: the file shrinks, the arithmetic stays float.

weight = codebook[index] · scale, with a scale per channel (its largest magnitude).
Standard operators of opset 13 decode the weights (BitShift, Mod, Cast, Gather, Mul), which any runtime has; onnxruntime
does it once, at load, so that latency and memory are those of the float model. Every operator's weights can be coded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.quant.graph import constant, input_at, name_of
from qpipe.quant.numbers import F32
from qpipe.quant.operators import infinite_weights, is_transposed
from qpipe.quant.options import QuantOptions
from qpipe.quant.rendering.render import forget_shapes
from qpipe.quant.rendering.tables import plan_tables, render_tables
from qpipe.quant.weights.kmeans import (
    indices_per_word,
    learn_levels,
    nearest_levels,
    pack_words,
    packed_bytes,
    word_type,
)
from qpipe.quant.writer import Writer
from qpipe.records.quantization import NodeChoice, QuantPlan, WeightSpec
from qpipe.records.scheme import Scheme

KMEANS = "kmeans"
"""The dtype of a weight specification that means a codebook."""
NODES_BYTES = 1024
"""About what the nodes that decode one weight take in the file."""
_WEIGHTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (1,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}
"""Inputs that carry weights."""


def plan_codebooks(
    model: ir.Model, scheme: Scheme, *, bits: int = 4, channels: int = 0, options: QuantOptions | None = None
) -> QuantPlan:
    """Choose the weights that codebooks of 2^bits levels make smaller: one for every `channels` channels, 0: for all.

    Raises:
        QuantizationError: the scheme does not decode codebooks, a weight is not finite, or no weight gets smaller.
    """
    if KMEANS not in scheme.weight_only_codes:
        raise QuantizationError(
            f"scheme {scheme.name!r} does not decode k-means codebooks",
            hint=f"its weight-only codes: {', '.join(scheme.weight_only_codes)}",
        )
    if not 2 <= bits <= 8 or channels < 0:
        raise QuantizationError(f"k-means takes 2 to 8 bits and 0 or more channels, not {bits} and {channels}")
    options = options or QuantOptions()
    nodes: list[NodeChoice] = []
    specs: list[WeightSpec] = []
    for value, readers in _weights(model.graph).items():
        reason = _refusal(value, readers, bits, channels, options)
        nodes += [
            NodeChoice(node=node.name or "", op=node.op_type, quantized=not reason, reason=reason) for node in readers
        ]
        if not reason:
            specs.append(_spec(value, readers, bits, channels))
    if not specs:
        raise QuantizationError(
            f"a k-means codebook of {bits} bits makes no weight of this graph smaller",
            hint="; ".join(f"{choice.node!r} ({choice.op}): {choice.reason}" for choice in nodes[:3])
            or "it has no constant weights",
        )
    weights = (*specs, *plan_tables(model.graph, scheme, options))
    return QuantPlan(scheme=scheme, mode="weight-only", activations=(), weights=weights, nodes=tuple(nodes))


def _weights(graph: ir.Graph) -> dict[ir.Value, list[ir.Node]]:
    """Constant float matrices (and tensors of higher rank) with the nodes of this graph that read them as weights."""
    found: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        for index in _WEIGHTS.get(node.op_type, ()) if node.domain == "" else ():
            value = input_at(node, index)
            array = constant(value)
            if value is not None and array is not None and array.dtype == np.float32 and array.ndim > 1:
                found.setdefault(value, []).append(node)
    return found


def _spec(value: ir.Value, readers: list[ir.Node], bits: int, channels: int) -> WeightSpec:
    return WeightSpec(
        tensor=name_of(value),
        dtype=KMEANS,
        bits=bits,
        symmetric=False,
        axis=_channel_axis(readers[0]),
        block_size=channels or None,
        method=KMEANS,
        nodes=tuple(node.name or "" for node in readers),
    )


def _channel_axis(node: ir.Node) -> int:
    """Axis of the output channels: along it scales and codebooks change."""
    if node.op_type == "Gemm":
        return 0 if is_transposed(node) else 1
    if node.op_type == "MatMul":
        array = constant(node.inputs[1])
        return 1 if array is None else array.ndim - 1
    return 1 if node.op_type in {"ConvTranspose", "LSTM", "GRU", "RNN"} else 0


def _refusal(value: ir.Value, readers: list[ir.Node], bits: int, channels: int, options: QuantOptions) -> str:
    array = constant(value)
    assert array is not None
    kept = next((reason for node in readers if (reason := options.keep(node))), "")
    if kept:
        return kept
    if not np.isfinite(array).all():
        raise infinite_weights(readers[0])
    count = array.shape[_channel_axis(readers[0])]
    books = -(-count // channels) if channels else 1
    coded = packed_bytes(array.size, bits) + 4 * (books * 2**bits + count) + NODES_BYTES
    return "" if coded < array.nbytes else f"coded it would take {coded} bytes, as it is {array.nbytes}"


def render_codebooks(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """The graph with indices and codebooks in place of the plan's weights; every reader sees the decoded weight.

    Raises:
        QuantizationError: the plan names a weight that the graph does not have.
    """
    copy = model.clone()
    writer = Writer(copy.graph)
    for spec in plan.weights:
        if spec.dtype != KMEANS:
            continue
        value = copy.graph.initializers.get(spec.tensor)
        if value is None:
            raise QuantizationError(f"the plan codes weight {spec.tensor!r}, which the graph does not have")
        _replace(writer, value, spec)
    render_tables(copy.graph, plan)
    forget_shapes(copy.graph)
    return copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A weight with its channels in front, as indices."""

    indices: NDArray[np.uint8]
    books: F32
    """[books, 2^bits]: each serves the same number of channels."""
    scale: F32
    """[channels, 1, …]."""
    channels: int
    """Channels that share a codebook."""

    def which(self) -> NDArray[np.int32]:
        """The codebook of each channel, [channels, 1, …]."""
        return (np.arange(len(self.indices)) // self.channels).astype(np.int32).reshape(self.scale.shape)

    def real(self, axis: int) -> F32:
        """The weight as the runtime decodes it, its channels on `axis`."""
        return np.asarray(np.moveaxis(self.books[self.which(), self.indices] * self.scale, 0, axis), np.float32)


def encode(array: F32, spec: WeightSpec) -> Coded:
    """Indices, codebooks and scales of a weight."""
    assert spec.axis is not None
    rows = np.moveaxis(array, spec.axis, 0)
    largest = np.abs(rows).max(axis=tuple(range(1, rows.ndim)), keepdims=True)
    scale = np.where(largest > 0, largest, np.float32(1)).astype(np.float32)
    units = (rows / scale).astype(np.float32)
    size = spec.block_size or len(rows)
    parts = [units[start : start + size] for start in range(0, len(rows), size)]
    books = np.stack([learn_levels(part, 2**spec.bits) for part in parts])
    indices = np.concatenate([nearest_levels(part, book) for part, book in zip(parts, books, strict=True)])
    return Coded(indices=indices, books=books, scale=scale, channels=size)


class _Decoder:
    """Adds the nodes that decode one weight, in front of everything that could read it."""

    def __init__(self, writer: Writer, tensor: str) -> None:
        self.writer, self.tensor = writer, tensor
        self.nodes: list[ir.Node] = []

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        return self.writer.initializer(f"{self.tensor}/{name}", array)

    def op(self, kind: str, *inputs: ir.Value, **attributes: int | str | list[int]) -> ir.Value:
        name = f"{self.tensor}/{kind}_{len(self.nodes)}"
        node = ir.node(kind, list(inputs), attributes=attributes, name=name)
        node.outputs[0].name = self.writer.names.fresh(name)
        self.nodes.append(node)
        return node.outputs[0]


def _replace(writer: Writer, value: ir.Value, spec: WeightSpec) -> None:
    coded = encode(np.asarray(constant(value), np.float32), spec)
    decoder = _Decoder(writer, spec.tensor)
    index = _unpacked(decoder, coded.indices, spec.bits)
    if len(coded.books) > 1:
        index = decoder.op("Add", index, decoder.constant("offsets", coded.which() * np.int32(2**spec.bits)))
    units = decoder.op("Gather", decoder.constant("codebooks", coded.books.reshape(-1)), index)
    decoded = decoder.op("Mul", units, decoder.constant("scales", coded.scale))
    if spec.axis:
        order = [*range(1, spec.axis + 1), 0, *range(spec.axis + 1, coded.indices.ndim)]
        decoded = decoder.op("Transpose", decoded, perm=order)
    writer.graph.insert_before(writer.graph[0], decoder.nodes)
    name = name_of(value)
    value.replace_all_uses_with(decoded, replace_graph_outputs=True)
    writer.graph.initializers.pop(name)
    decoded.name = name


def _unpacked(decoder: _Decoder, indices: NDArray[np.uint8], bits: int) -> ir.Value:
    """int32 indices in the shape that they had before they were packed."""
    each, word = indices_per_word(bits), word_type(bits)
    shape = decoder.constant("shape", np.array(indices.shape, np.int64))
    if each == 1:
        stored = decoder.constant("indices", indices.reshape(-1))
        return decoder.op("Reshape", decoder.op("Cast", stored, to=int(ir.DataType.INT32)), shape)
    words = decoder.constant("indices", pack_words(indices, bits).reshape(-1, 1))
    shifts = decoder.constant("shifts", (np.arange(each) * bits).astype(word))
    shifted = decoder.op("BitShift", words, shifts, direction="RIGHT")
    cut = decoder.op("Mod", shifted, decoder.constant("levels", np.array(2**bits, word)))
    index = decoder.op("Cast", cut, to=int(ir.DataType.INT32))
    if indices.size % each:
        index = decoder.op("Reshape", index, decoder.constant("flat", np.array([-1], np.int64)))
        ends = [decoder.constant(name, np.array([end], np.int64)) for name, end in (("from", 0), ("to", indices.size))]
        index = decoder.op("Slice", index, *ends)
    return decoder.op("Reshape", index, shape)
