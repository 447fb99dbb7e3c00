"""Islands: float operators between dequantized inputs and a quantized output, which run as one integer kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.quant.graph import constant, only_consumer


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """Integers with the scale and zero point that they stand for."""

    values: ir.Value
    scale: ir.Value
    zero: ir.Value
    pair: ir.Node
    """The QuantizeLinear or DequantizeLinear that says so."""

    @property
    def parameters(self) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point, as the kernels take them."""
        return self.scale, self.zero

    def same_grid(self, other: Quantized) -> bool:
        """Whether both have the same scale and zero point."""
        pairs = zip(self.parameters, other.parameters, strict=True)
        return all(np.array_equal(array_of(ours), array_of(theirs)) for ours, theirs in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """One float operator, its inputs in integers, and the integers that it is rounded to."""

    node: ir.Node
    inputs: tuple[Quantized, ...]
    output: Quantized
    quantizer: ir.Node


def island(node: ir.Node, graph: ir.Graph, images: int) -> Island | None:
    """The island around a node, or None.

    Args:
        node: a float operator.
        graph: its graph.
        images: how many of its inputs, from the first, must be uint8 tensors of four axes with one scale; the others
            are constants.
    """
    quantizer = only_consumer(node.outputs[0], graph) if len(node.outputs) == 1 else None
    if quantizer is None or quantizer.op_type != "QuantizeLinear" or quantizer.outputs[0].is_graph_output():
        return None
    inputs = tuple(_dequantized(value) for value in node.inputs)
    output = _integers(quantizer, quantizer.outputs[0])
    if output is None or not _is_image(output):
        return None
    found = tuple(item for item in inputs if item is not None)
    if len(found) < len(inputs) or not all(_is_image(item) for item in found[:images]):
        return None
    if any(constant(item.values) is None for item in found[images:]):
        return None
    return Island(node=node, inputs=found, output=output, quantizer=quantizer)


def sizes(image: ir.Value) -> tuple[int, int, int] | None:
    """Channels, height and width [C, H, W], or None where one is not known before the run."""
    shape = tuple(image.shape[1:]) if image.shape is not None else ()
    return shape if len(shape) == 3 and all(isinstance(size, int) for size in shape) else None  # type: ignore[return-value]


def _dequantized(value: ir.Value | None) -> Quantized | None:
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear" or "block_size" in producer.attributes:
        return None
    return _integers(producer, producer.inputs[0])


def _integers(pair: ir.Node, values: ir.Value | None) -> Quantized | None:
    """The integer side of a QuantizeLinear or DequantizeLinear that has a constant scale and zero point."""
    if values is None or len(pair.inputs) < 3:
        return None
    scale, zero = pair.inputs[1], pair.inputs[2]
    if scale is None or zero is None or constant(scale) is None or constant(zero) is None:
        return None
    return Quantized(values=values, scale=scale, zero=zero, pair=pair)


def _is_image(item: Quantized) -> bool:
    """Whether this is a uint8 tensor of four axes with one scale."""
    shape = item.values.shape
    return (
        shape is not None
        and len(shape) == 4
        and item.zero.dtype == ir.DataType.UINT8
        and array_of(item.scale).size == 1
    )


def array_of(value: ir.Value) -> NDArray[np.generic]:
    """The array of a constant that `island` has checked."""
    found = constant(value)
    assert found is not None
    return found
