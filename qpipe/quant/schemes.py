"""Schemes of the runtimes that we know: plain data, imported by backends and without heavy imports.

Source: onnxruntime 1.31 `core/optimizer/qdq_transformer` (which groups fuse) and `core/mlas` (which kernels exist);
TensorRT developer guide, "Working with Quantized Types"; LiteRT 8-bit quantization specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qpipe.errors import TargetError
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target

_KEEPING = (
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Slice",
    "Split",
    "Gather",
    "Expand",
    "DepthToSpace",
    "SpaceToDepth",
)

ORT_X86_VNNI = Scheme(
    name="ort-x86-vnni",
    activation="uint8",
    weight="int8",
    ops=("Conv", "Gemm", "MatMul"),
    passthrough_ops=_KEEPING,
    joining_ops=("Concat",),
    elementwise_ops=("Add", "Mul", "GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu"),
    float_output_ops=("Gemm", "MatMul"),
    activation_matmul=False,
    direct_channels=3,
    packs=4,
    grid_below=64,
    dynamic_ops=("MatMul", "Gemm", "LSTM"),
    weight_only_bits=(4, 8),
    weight_only_codes=("linear", "nf4", "kmeans"),
    block_kernels=("MatMulNBits", "DequantizeLinear"),
    block_ops=("Conv", "Gemm", "MatMul"),
    fused_ops=("MatMul",),
    table_ops=("Gather",),
)
"""onnxruntime on x86-64 with VNNI: unsigned activations × signed weights; everything else is slow there.

A first convolution of an image stays float unless its pixels can be packed: MLAS has a direct float kernel for it, its
integer one goes through every pixel of three channels. In small images it is on integers where that costs no precision.
"""

ORT_X86_AMX = replace(ORT_X86_VNNI, name="ort-x86-amx", tiles=True)
"""The same arithmetic on AMX tiles: the engine has other packs of pixels, for the same results."""

ORT_X86_AVX2 = replace(ORT_X86_VNNI, name="ort-x86-avx2", weight_bits=7, packs=0, grid_below=0)
"""onnxruntime on x86-64 without VNNI: 7-bit weights, since `vpmaddubsw` saturates sums of two products."""

ORT_ARM64 = replace(
    ORT_X86_VNNI,
    name="ort-arm64",
    activation="int8",
    direct_channels=0,
    packs=0,
    grid_below=0,
    float_types=("float32", "float16"),
)
"""onnxruntime on arm64: signed × signed (`sdot`, `smmla`)."""

TENSORRT = Scheme(
    name="tensorrt",
    activation="int8",
    activation_symmetric=True,
    weight="int8",
    quantize_bias=False,
    ops=("Conv", "ConvTranspose", "Gemm", "MatMul"),
    passthrough_ops=("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
    joining_ops=(),
    elementwise_ops=(),
    quantize_outputs=False,
    absorb_relu=False,
    float_types=("float32", "float16", "bfloat16"),
    weight_only_bits=(4,),
    block_kernels=("DequantizeLinear",),
)
"""TensorRT: symmetric, float biases, Q/DQ on the inputs of weighted operators and on residual inputs alone."""

TENSORRT_FP8 = replace(
    TENSORRT, name="tensorrt-fp8", activation="float8e4m3fn", weight="float8e4m3fn", per_channel=False
)
"""TensorRT with FP8 E4M3 (compute capability 8.9 and later)."""

LITERT = Scheme(
    name="litert",
    activation="int8",
    weight="int8",
    ops=("Conv", "ConvTranspose", "Gemm", "MatMul"),
    passthrough_ops=_KEEPING,
    joining_ops=("Concat",),
    elementwise_ops=("Add", "Mul", "GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu"),
    float_output_ops=("Gemm", "MatMul"),
    float_types=("float32", "float16"),
)
"""LiteRT (XNNPACK and reference kernels): asymmetric int8 activations, symmetric per-channel int8 weights.

A dense layer that nothing reads as integers keeps a float output: its kernel quantizes its input row by row (`qd8`).
"""

LITERT_INTEGER = replace(LITERT, name="litert-integer", float_output_ops=())
"""LiteRT with int8 outputs throughout, for files with an int8 border."""

LITERT_MICRO = replace(
    LITERT_INTEGER,
    name="litert-micro",
    elementwise_ops=(
        *LITERT.elementwise_ops,
        *("Sub", "Div", "ReduceMean", "HardSwish", "HardSigmoid", "Tanh", "Softmax", "PRelu", "Elu", "Abs"),
    ),
)
"""tflite-micro and Ethos-U: integer kernels for more, and none that quantize at run time."""

FLOAT = Scheme(name="float", ops=(), passthrough_ops=(), joining_ops=(), elementwise_ops=())
"""A target without integer kernels: every quantizing stage refuses it."""


def named_scheme(target: Target, known: Mapping[str, Scheme]) -> Scheme | None:
    """The scheme that a target asks its backend for by name; None where it names none.

    Raises:
        TargetError: the backend has no scheme of this name.
    """
    if target.scheme and target.scheme not in known:
        message = f"target {target.name}: backend {target.backend} has no scheme {target.scheme!r}"
        raise TargetError(message, hint=f"known schemes: {', '.join(known)}")
    return known.get(target.scheme)
