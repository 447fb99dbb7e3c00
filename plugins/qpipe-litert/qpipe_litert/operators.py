"""What is particular to each operator of a `.tflite`: how it treats values, and which kernels there are for it."""

from __future__ import annotations

from collections.abc import Mapping

from qpipe_litert.options import Kernels

MOVING = (
    *("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PAD", "PADV2", "MIRROR_PAD", "SLICE", "STRIDED_SLICE"),
    *("SPLIT", "SPLIT_V", "GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "PACK", "UNPACK", "CONCATENATION", "TILE"),
    *("BROADCAST_TO", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "REVERSE_V2"),
    *("MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "REDUCE_MAX", "REDUCE_MIN", "SELECT", "SELECT_V2", "FILL", "TOPK_V2"),
    *("QUANTIZE", "DEQUANTIZE", "CAST", "DYNAMIC_UPDATE_SLICE", "SCATTER_ND", "REVERSE_SEQUENCE", "ZEROS_LIKE"),
)
"""Operators that move, choose or convert values; all others compute."""
KEEPS_VALUES = (
    *("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "MAX_POOL_2D", "PAD", "SLICE", "STRIDED_SLICE", "SPLIT"),
    *("GATHER", "PACK", "UNPACK", "BROADCAST_TO", "SPACE_TO_DEPTH", "CONCATENATION"),
)
"""Operators that only move values, or choose among them: quantized kernels demand one scale for inputs and outputs."""
KEEPS_SCALE = (
    *KEEPS_VALUES,
    *("AVERAGE_POOL_2D", "DEPTH_TO_SPACE", "MIRROR_PAD", "PADV2", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
)
"""Those, and others of which quantized kernels demand the same. Source: LiteRT 8-bit quantization specification."""
FIXED_RANGES = {"LOGISTIC": (0.0, 1.0), "SOFTMAX": (0.0, 1.0), "TANH": (-1.0, 1.0)}
"""Ranges that int8 kernels demand of their output. Source: LiteRT 8-bit quantization specification."""
DYNAMIC = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
"""Operators with kernels that quantize their input at run time."""
INTEGER_KERNELS: Mapping[Kernels, Mapping[str, int]] = {
    "xnnpack": {"LEAKY_RELU": 2},
    "reference": {"LEAKY_RELU": 2, "PRELU": 1, "ELU": 1, "ABS": 2, "DEPTH_TO_SPACE": 1, "SQUEEZE": 1},
}
"""Operators with int8 kernels that the file's quantizer does not know of, and the version that says so."""
