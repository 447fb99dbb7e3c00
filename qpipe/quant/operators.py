"""What is particular to each weighted operator: its channel axis, its bias, and when it cannot be quantized."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from qpipe.errors import QuantizationError
from qpipe.quant.graph import attr_float, attr_int, attr_ints, constant, input_at, is_float, rank_of
from qpipe.records.scheme import Scheme

PIXELS = "qpipe.pixels"
"""Metadata of the node that writes the pixels of an image, one step to a level: their zero point, 0 to 255."""
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def refusal(node: ir.Node, scheme: Scheme) -> str:
    """Why a weighted operator cannot run on integers under a scheme, or an empty string."""
    data, weight = node.inputs[0], node.inputs[1]
    if data is None or weight is None:
        return "an input is missing"
    if not is_float(data) or not is_float(weight):
        return f"it computes in {data.dtype.name if data.dtype is not None else 'an unknown type'}, not in float32"
    if data.is_initializer():
        return "its data input is constant"
    if constant(weight) is None:
        return _activation_matmul(node, scheme)
    return _constant_weight(node, scheme) or _direct(node, scheme)


def _direct(node: ir.Node, scheme: Scheme) -> str:
    """Why a first convolution stays in float, where the runtime is faster, or an empty string."""
    weight = constant(node.inputs[1])
    if weight is None or node.op_type != "Conv" or attr_int(node, "group", 1) > 1:
        return ""
    channels = int(weight.shape[1])
    if channels > scheme.direct_channels or packable(node, scheme) or pixel_zero(node.inputs[0]) is not None:
        return ""
    return f"a convolution of {channels} input channels is faster in float on this target"


def pixel_zero(value: ir.Value | None) -> int | None:
    """The zero point of a tensor of pixels, one step to a level (0 to 255); None for any other tensor."""
    producer = value.producer() if value is not None else None
    found = producer.metadata_props.get(PIXELS) if producer is not None else None
    return None if found is None else int(found)


def packable(node: ir.Node, scheme: Scheme) -> bool:
    """Whether the rows of the image and of the result have known lengths that can be cut into packs of pixels."""
    packs = scheme.packs
    data, stride = node.inputs[0], attr_ints(node, "strides", (1, 1))[-1]
    if not packs or data is None or data.shape is None or node.outputs[0].shape is None:
        return False
    width, outputs = data.shape[-1], node.outputs[0].shape[-1]
    if not isinstance(width, int) or not isinstance(outputs, int) or (stride > 2 and stride % packs):
        return False
    fits = width >= scheme.packs_from and width % packs == 0 and outputs * stride == width
    return rank_of(data) == 4 and fits


def _activation_matmul(node: ir.Node, scheme: Scheme) -> str:
    if node.op_type != "MatMul":
        return "its weights are not constant"
    return "" if scheme.activation_matmul else "both inputs are activations, which this scheme keeps in float"


def _constant_weight(node: ir.Node, scheme: Scheme) -> str:
    array = constant(node.inputs[1])
    assert array is not None
    bias = input_at(node, 2)
    if array.size == 0:
        return "its weights are empty"
    if node.op_type == "MatMul" and array.ndim < 2:
        return "its weights are a vector"
    if node.op_type == "Gemm" and attr_int(node, "transA", 0):
        return "its data input is transposed (transA)"
    if node.op_type == "Gemm" and attr_float(node, "alpha", 1.0) != 1.0:
        return "its alpha is not 1"
    if bias is not None and scheme.quantize_bias:
        return _bias_refusal(node, bias)
    return ""


def _bias_refusal(node: ir.Node, bias: ir.Value) -> str:
    array = constant(bias)
    if array is None:
        return "its bias is not constant"
    if node.op_type == "Gemm" and attr_float(node, "beta", 1.0) != 1.0:
        return "its beta is not 1"
    channels = out_channels(node)
    if array.size not in {1, channels} or (array.ndim > 1 and array.size == channels and array.shape[-1] != channels):
        return "its bias varies along the batch"
    return ""


def is_plain(node: ir.Node) -> bool:
    """Whether a rewrite may change the weights and the bias.

    Both are float32 constants then, and the bias is one number for each output channel, neither scaled by beta nor
    different along the batch. A node without a bias is plain too.
    """
    weight, bias = constant(node.inputs[1]), input_at(node, 2)
    if weight is None or weight.dtype != np.float32 or weight.ndim < 2:
        return False
    return bias is None or not _bias_refusal(node, bias)


def out_channels(node: ir.Node) -> int:
    """Number of output channels of a weighted operator with constant weights."""
    weight = constant(node.inputs[1])
    assert weight is not None
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * attr_int(node, "group", 1)
    axis = channel_axis(node)
    return int(weight.shape[-1 if axis is None else axis])


def channel_axis(node: ir.Node) -> int | None:
    """Axis of the weights that runs over output channels, or None where there is none that kernels take."""
    weight = constant(node.inputs[1])
    assert weight is not None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attr_int(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if is_transposed(node) else 1
    return 1 if weight.ndim == 2 else None


def is_transposed(node: ir.Node) -> bool:
    """Whether the weights are those of a Gemm with one row for each output channel (`transB`)."""
    return node.op_type == "Gemm" and bool(attr_int(node, "transB", 0))


def clip_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Smallest and largest value that a Clip lets through, infinite without such an end; None where one is computed."""
    ends = []
    for index, open_end in ((1, -math.inf), (2, math.inf)):
        value = input_at(node, index)
        array = constant(value)
        if value is not None and array is None:
            return None
        ends.append(open_end if array is None else float(np.asarray(array, np.float64).reshape(-1)[0]))
    return ends[0], ends[1]


def activation_axis(value: ir.Value) -> int:
    """The channel axis of an activation, from the operators around it: 1 near convolutions, the last one elsewhere."""
    rank = rank_of(value)
    if rank == 2:
        return -1
    producer = value.producer()
    around = [use.node for use in value.uses()] + ([producer] if producer is not None else [])
    if any(node.op_type in {"Conv", "ConvTranspose", "BatchNormalization"} for node in around):
        return 1
    if any(node.op_type in {"MatMul", "Gemm", "LayerNormalization"} for node in around) or rank is None or rank < 3:
        return -1
    return 1 if rank in {4, 5} else -1


def finite(node: ir.Node) -> bool:
    """Whether all constant float inputs of the node are finite."""
    arrays = [constant(value) for value in node.inputs[1:]]
    return all(array is None or array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays)


def infinite_weights(node: ir.Node) -> QuantizationError:
    """The error for a node whose weights are not finite."""
    return QuantizationError(
        f"node {node.name!r} ({node.op_type}) has NaN or infinite weights",
        hint="repair the model, or keep the node in float with `keep_float`",
    )
