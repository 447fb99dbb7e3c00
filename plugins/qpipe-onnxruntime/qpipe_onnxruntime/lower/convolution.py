"""One quantized convolution as onnxruntime's `QLinearConv` in NHWC.

Source: onnxruntime, docs/ContribOperators.md, com.microsoft.QLinearConv with `channels_last`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.quant.graph import attr_int, attr_ints
from qpipe.quant.rendering.matmul import MICROSOFT
from qpipe_onnxruntime.lower.choices import Choice
from qpipe_onnxruntime.lower.images import Images
from qpipe_onnxruntime.lower.islands import Island, array_of, sizes
from qpipe_onnxruntime.lower.pixels import ALONE, Packs, Rows, pack_weights, packed_rows
from qpipe_onnxruntime.lower.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """An integer kernel."""

    node: ir.Node
    packs: Packs = ALONE
    """Of its image and its result."""
    spread: Spread | None = None
    """Its weights, where it is on packs."""


def integer_convolution(found: Island, images: Images, choose: Choice) -> Convolution | None:
    """The kernel of a convolution between quantized images.

    None where its weights are not int8 around zero, per tensor or per output channel, or its bias is not int32.
    """
    if not _has_kernel(found):
        return None
    node, data, weights = found.node, found.inputs[0], found.inputs[1]
    array, rows = array_of(weights.values), _rows(found)
    chosen = ALONE if rows is None else choose(array.shape, rows)
    spread = None
    constants = [weights.values, *weights.parameters, *(item.values for item in found.inputs[2:])]
    pads, strides = attr_ints(node, "pads", (0, 0, 0, 0)), attr_ints(node, "strides", (1, 1))
    if rows is not None and chosen != ALONE:
        small, array, packed = array, pack_weights(array, rows, chosen), packed_rows(rows, chosen)
        constants = [
            images.constant(weights.values, array),
            *(_repeat(images, item, len(small), chosen) for item in constants[1:]),
        ]
        pads, strides = (pads[0], packed.left, pads[2], packed.right), (strides[0], packed.stride)
        spread = Spread(packed=constants[0], weights=small, rows=rows, packs=chosen)
    attributes: dict[str, int | tuple[int, ...]] = {
        "kernel_shape": array.shape[2:],
        "pads": pads,
        "strides": strides,
        "dilations": attr_ints(node, "dilations", (1, 1)),
        "group": attr_int(node, "group", 1),
        "channels_last": 1,
    }
    image = [images.get(data.values, chosen.image), *data.parameters]
    inputs = [*image, *constants[:3], *found.output.parameters, *constants[3:]]
    kernel = ir.node("QLinearConv", inputs, attributes, domain=MICROSOFT, name=node.name)
    return Convolution(node=kernel, packs=chosen, spread=spread)


def _has_kernel(found: Island) -> bool:
    weights, bias = found.inputs[1], found.inputs[2:]
    array, scale = array_of(weights.values), array_of(weights.scale)
    if weights.zero.dtype != ir.DataType.INT8 or np.any(array_of(weights.zero)) or array.ndim != 4:
        return False
    if scale.size not in (1, array.shape[0]) or (scale.ndim and attr_int(weights.pair, "axis", 1) != 0):
        return False
    return all(item.values.dtype == ir.DataType.INT32 for item in bias)


def _rows(found: Island) -> Rows | None:
    """How it runs along the rows, or None where it cannot be packed: groups, dilation, an unknown width."""
    node, image = found.node, sizes(found.inputs[0].values)
    dilated = attr_ints(node, "dilations", (1, 1))[1] > 1
    if image is None or dilated or attr_int(node, "group", 1) > 1 or sizes(found.output.values) is None:
        return None
    pads, kernel = attr_ints(node, "pads", (0, 0, 0, 0)), array_of(found.inputs[1].values).shape[3]
    stride = attr_ints(node, "strides", (1, 1))[1]
    return Rows(width=image[2], kernel=kernel, left=pads[1], right=pads[3], stride=stride)


def _repeat(images: Images, value: ir.Value, channels: int, packs: Packs) -> ir.Value:
    """One entry per packed channel, where there is one per channel (of one channel too: a bias has to have them)."""
    array = array_of(value)
    return value if array.shape != (channels,) else images.constant(value, np.tile(array, packs.result))
