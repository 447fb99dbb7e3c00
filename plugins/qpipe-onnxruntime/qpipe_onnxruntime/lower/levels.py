"""Pixels straight from the image: what scales and shifts its channels before a quantizer goes into the quantizer.

QuantizeLinear takes a scale and a zero point per channel: rint(x·a/s + b/s) + z is rint(x / (s/a)) + z + rint(b/s) for
every x whose level x·a/s + b/s is whole, as the pixels of an 8-bit image are, while b/s is not half-way between two
levels: then one Add stays. A level between two goes to one of them, by the fraction of b/s not always to the nearer.
Source: ONNX, docs/Operators.md, QuantizeLinear (`axis`), Pad.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.quant.graph import attr_string, constant, name_of, only_consumer, rank_of
from qpipe.quant.numbers import F64
from qpipe.quant.writer import Writer
from qpipe_onnxruntime.lower.islands import array_of

HALF = 0.49
"""Largest distance of the shift from a level: float32 normalization moves a level by 1e-4."""
_LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channels:
    """quantize(pad(image·factor + shift)): factors and shifts are [C]."""

    image: ir.Value
    factor: F64
    shift: F64
    pad: ir.Node | None
    one: float
    """The number in the channels that `pad` appends."""


def lower_levels(graph: ir.Graph) -> int:
    """Let uint8 quantizers of per-channel Mul, Add and channel Pad read the image itself, in place; how many do."""
    writer, done = Writer(graph), 0
    for node in list(graph):
        if node.op_type == "QuantizeLinear" and (found := _channels(node, graph)) is not None:
            _rewrite(writer, node, found)
            done += 1
    return done


def _channels(quantizer: ir.Node, graph: ir.Graph) -> _Channels | None:
    scale, zero = (constant(value) for value in quantizer.inputs[1:3]) if len(quantizer.inputs) > 2 else (None, None)
    value = quantizer.inputs[0]
    if (
        scale is None
        or zero is None
        or value is None
        or scale.size > 1
        or zero.dtype != np.uint8
        or rank_of(value) != 4
    ):
        return None
    pad = _before(value, "Pad", graph)
    one = _constant_pad(pad) if pad is not None else 0.0
    if one is None:
        return None
    shifted = pad.inputs[0] if pad is not None else value
    add = _before(shifted, "Add", graph)
    multiply = _before(add.inputs[0] if add is not None else shifted, "Mul", graph)
    factor = _vector(multiply)
    shift = _vector(add) if add is not None else np.zeros(1)
    if multiply is None or factor is None or shift is None or shifted is None or np.any(factor <= 0):
        return None
    image = multiply.inputs[0]
    assert image is not None
    step = float(scale.reshape(-1)[0])
    size = max(factor.size, shift.size)
    factor, shift = np.broadcast_to(factor / step, size), np.broadcast_to(shift / step, size)
    return _Channels(image=image, factor=factor, shift=shift, pad=pad, one=one)


def _before(value: ir.Value | None, op: str, graph: ir.Graph) -> ir.Node | None:
    """The operator of this kind that writes a value for one reader alone."""
    node = value.producer() if value is not None else None
    alone = value is not None and only_consumer(value, graph) is not None
    return node if node is not None and alone and node.op_type == op and node.domain in ("", "ai.onnx") else None


def _vector(node: ir.Node | None) -> F64 | None:
    """The second operand of an operator, one number per channel [C]."""
    array = constant(node.inputs[1]) if node is not None else None
    if array is None or array.ndim != 4 or array.shape != (1, array.size, 1, 1):
        return None
    return array.astype(np.float64).reshape(-1)


def _constant_pad(pad: ir.Node) -> float | None:
    """The number in the channels that a Pad appends, or None where it does something else."""
    pads = constant(pad.inputs[1])
    number = constant(pad.inputs[2]) if len(pad.inputs) > 2 else None
    other = np.arange(8) != 5
    if len(pad.inputs) > 3 or attr_string(pad, "mode", "constant") != "constant" or pads is None or pads.size != 8:
        return None
    return float(number.reshape(-1)[0]) if number is not None and not np.any(pads[other]) and pads[5] > 0 else None


def _rewrite(writer: Writer, quantizer: ir.Node, found: _Channels) -> None:
    scale, zero = (array_of(value).reshape(-1)[0] for value in quantizer.inputs[1:3] if value is not None)
    output = quantizer.outputs[0]
    base = quantizer.name or name_of(output)
    levels = np.clip(np.rint(found.shift) + int(zero), 0, _LEVELS)
    rest, image = found.shift - (levels - int(zero)), found.image
    if np.abs(rest).max() > HALF:
        part = writer.initializer(f"{base}/rest", (rest / found.factor).astype(np.float32).reshape(1, -1, 1, 1))
        image = writer.insert(quantizer, "Add", [image, part], name=f"{base}/shifted")
    steps = writer.initializer(f"{base}/steps", (1 / found.factor).astype(np.float32))
    zeros = writer.initializer(f"{base}/zeros", levels.astype(np.uint8))
    value = writer.insert(quantizer, "QuantizeLinear", [image, steps, zeros], {"axis": 1}, base)
    if found.pad is not None and found.pad.inputs[1] is not None:
        number = np.clip(np.rint(found.one / float(scale)) + int(zero), 0, _LEVELS).astype(np.uint8)
        one = writer.initializer(f"{base}/one", number)
        value = writer.insert(quantizer, "Pad", [value, found.pad.inputs[1], one], name=f"{base}/pad")
    value.shape, value.type = output.shape, output.type
    value.name, output.name = output.name, writer.names.fresh(f"{base}/gone")
    output.replace_all_uses_with(value, replace_graph_outputs=output.is_graph_output())
