"""First convolutions that read the pixels themselves, so that an 8-bit image is quantized without loss.

The image x = (level − zero)·step becomes p = x/step + (zero − z) = level − z, with one zero point z for all channels,
and the steps go into the weights: W' = W·step. A channel whose own zero is not z is then too large by zero − z wherever
a tap meets the image, and right where it meets padding. One more channel takes that back: it holds the number c in the
image and 0 in the padding, and its weights are −ΣW'·(zero − z)/c. Exact but for float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from qpipe.quant.calibration.statistics import Statistics, TensorStatistics
from qpipe.quant.edits import Names, add_initializer, insert_behind, replace_constant
from qpipe.quant.graph import attr_ints, attr_string, constant, name_of, rank_of
from qpipe.quant.grid import LEVELS, Grid
from qpipe.quant.numbers import F64
from qpipe.quant.operators import PIXELS, packable, refusal
from qpipe.quant.options import QuantOptions
from qpipe.records.scheme import Scheme

CHANNELS = 3
"""Of an image for which this is faster than the float kernel: one channel is not (docs/benchmarks/packing.md)."""
LEFT_OUT = "set `pixels_below` to 0"
"""How to do without, in a pipeline and in Python."""
_TO_NCHW = (0, 3, 1, 2)

FindGrid = Callable[[str, int], Grid | None]
"""`find(input, axis)`: the grid of a model input with channels on that axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """An image in NCHW, the model input that it is, and the convolutions that will read its pixels."""

    value: ir.Value
    input: ir.Value
    axis: int
    readers: tuple[ir.Node, ...]


def read_pixels(
    model: ir.Model, statistics: Statistics, scheme: Scheme, options: QuantOptions, find: FindGrid
) -> tuple[tuple[str, ...], Statistics]:
    """Rewrite the first convolutions of small images whose pixels stand on a grid, in place.

    Gives the nodes that were changed, and the statistics with those of the new tensors. Nothing is looked at where the
    scheme does not ask for it, or no such convolution reads an input.
    """
    done: list[str] = []
    tensors = dict(statistics.tensors)
    for image in _images(model.graph, scheme, options):
        grid = find(name_of(image.input), image.axis)
        if grid is None:
            continue
        pixels, item = _pixels(model.graph, image, grid, statistics)
        tensors[item.tensor] = item
        for node in image.readers:
            _read(model.graph, node, pixels, grid, item)
            done.append(node.name or "")
    return tuple(done), replace(statistics, tensors=tensors)


def _images(graph: ir.Graph, scheme: Scheme, options: QuantOptions) -> list[_Image]:
    below = scheme.grid_below if options.pixels_below is None else options.pixels_below
    if not below or not scheme.packs or scheme.activation not in {"uint8", "int8"} or scheme.activation_symmetric:
        return []
    found = []
    for value in graph.inputs:
        turned = [use.node.outputs[0] for use in value.uses() if _to_nchw(use.node)]
        for image, axis in ((value, 1), *((one, 3) for one in turned)):
            if rank_of(image) != 4 or not _small(image, below):
                continue
            nodes = dict.fromkeys(use.node for use in image.uses() if use.idx == 0)
            readers = tuple(node for node in nodes if _takes(node, scheme, options))
            if readers:
                found.append(_Image(value=image, input=value, axis=axis, readers=readers))
    return found


def _to_nchw(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and attr_ints(node, "perm", ()) == _TO_NCHW


def _small(image: ir.Value, below: int) -> bool:
    sizes = image.shape
    return sizes is not None and sizes[1] == CHANNELS and isinstance(sizes[3], int) and sizes[3] < below


def _takes(node: ir.Node, scheme: Scheme, options: QuantOptions) -> bool:
    """Whether a convolution is faster on integers with its pixels on a grid than in float, or on integers anyway."""
    if node.op_type != "Conv" or options.keep(node) or options.int4_block(node) is not None:
        return False
    if refusal(node, replace(scheme, direct_channels=0)) or not packable(node, replace(scheme, packs_from=0)):
        return False
    weight, dilations = constant(node.inputs[1]), attr_ints(node, "dilations", (1, 1))
    assert weight is not None
    wide = weight.shape[3] >= 3 * attr_ints(node, "strides", (1, 1))[1]
    plain = set(dilations) == {1} and attr_string(node, "auto_pad", "NOTSET") == "NOTSET"
    return plain and weight.shape[1] == CHANNELS and (wide or not refusal(node, scheme))


def _pixels(graph: ir.Graph, image: _Image, grid: Grid, statistics: Statistics) -> tuple[ir.Value, TensorStatistics]:
    """The pixels around their zero point, with a channel of one number where zeros need it, and their statistics."""
    zero = int(np.clip(np.rint(grid.zero.mean()), 0, LEVELS - 1))
    offset, base = grid.zero - zero, f"{image.readers[0].name}/pixels"
    steps = [("scale", "Mul", 1 / grid.step), ("shift", "Add", offset)]
    names, value, nodes = Names(graph), image.value, []
    for name, op, array in steps if np.any(offset) else steps[:1]:
        factor = add_initializer(graph, names.fresh(f"{base}/{name}"), array.astype(np.float32).reshape(1, -1, 1, 1))
        nodes.append(ir.node(op, [value, factor], name=f"{base}/{name}"))
        value = nodes[-1].outputs[0]
        value.name, value.type, value.shape = names.fresh(f"{base}/{name}d"), image.value.type, image.value.shape
    mean, one = grid.mean - zero, float(LEVELS - 1 - zero if zero < LEVELS // 2 else -zero)
    if np.any(offset):
        pads = add_initializer(graph, names.fresh(f"{base}/pads"), np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64))
        number = add_initializer(graph, names.fresh(f"{base}/one"), np.array(one, np.float32))
        nodes.append(ir.node("Pad", [value, pads, number], name=f"{base}/pad"))
        value, mean = nodes[-1].outputs[0], np.append(mean, one)
        assert image.value.shape is not None
        sizes = image.value.shape
        value.name, value.type = names.fresh(f"{base}/padded"), image.value.type
        value.shape = ir.Shape([sizes[0], mean.size, *sizes[2:]])
    nodes[-1].metadata_props[PIXELS] = str(zero)
    insert_behind(graph, image.value, nodes)
    return value, _statistics(value, image, mean, zero, statistics)


def _statistics(value: ir.Value, image: _Image, mean: F64, zero: int, known: Statistics) -> TensorStatistics:
    """Of the pixels: what every level could be, and the means that were found."""
    rows = next((item.shapes[-1][0] for item in known.inputs if item.name == image.input.name), 1)
    assert value.shape is not None
    shape = (rows, *(size for size in value.shape[1:] if isinstance(size, int)))
    low = np.full(mean.size, -float(zero))
    return TensorStatistics(
        tensor=name_of(value),
        axis=1,
        shape=shape,
        elements=known.rows * int(np.prod(shape[1:])),
        low=low,
        high=low + (LEVELS - 1),
        mean=mean,
        bins_low=-float(zero),
        bins_high=float(LEVELS - 1 - zero),
        bins=np.zeros(1, np.int64),
        zeros=0,
        drawn=0,
        square=0.0,
        vectors=np.zeros((0, 0), np.float32),
    )


def _read(graph: ir.Graph, node: ir.Node, pixels: ir.Value, grid: Grid, item: TensorStatistics) -> None:
    """Let a convolution read pixels in place of the image."""
    weight = np.asarray(constant(node.inputs[1]), np.float64) * grid.step.reshape(1, -1, 1, 1)
    if item.mean.size > CHANNELS:
        offset = (grid.zero + item.low[0]).reshape(1, -1, 1, 1)  # the lowest level is −z
        weight = np.concatenate([weight, -(weight * offset).sum(axis=1, keepdims=True) / item.mean[-1]], axis=1)
    node.replace_input_with(0, pixels)
    replace_constant(graph, node, 1, weight.astype(np.float32))
