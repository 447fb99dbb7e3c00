"""What arithmetic a target really runs: nothing else in a recipe knows the hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ActivationType = Literal["uint8", "int8", "uint16", "int16", "float8e4m3fn"]
WeightType = Literal["int8", "uint8", "int4", "float8e4m3fn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The integer arithmetic of one target, and where its Q/DQ pairs stand.

    A `Scheme` is data: the quantizer reads it, the backend supplies it, and it is part of the prepare key.
    """

    name: str
    activation: ActivationType = "uint8"
    activation_symmetric: bool = False
    weight: WeightType = "int8"
    weight_symmetric: bool = True
    weight_bits: int = 8
    """7 where 8-bit products saturate (AVX2 without VNNI: `vpmaddubsw` adds two products into 16 bits)."""
    per_channel: bool = True
    quantize_bias: bool = True
    """int32 biases with scale = activation scale × weight scale (ONNX Runtime); TensorRT refuses them."""
    ops: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    """Operators that have an integer kernel with quantized activations."""
    passthrough_ops: tuple[str, ...] = ("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
    """Operators that keep the scale of their input: Q/DQ of input and output are shared."""
    joining_ops: tuple[str, ...] = ("Concat",)
    """Operators whose inputs and output share one scale."""
    elementwise_ops: tuple[str, ...] = ("Add", "GlobalAveragePool", "AveragePool")
    """Operators with an integer kernel that are worth quantizing only between integer neighbours."""
    float_output_ops: tuple[str, ...] = ()
    """Integer operators whose output stays float when the next operator is float anyway (MatMul on x86)."""
    activation_matmul: bool = True
    """Whether MatMuls of two activations (QK and PV of attention) are quantized."""
    quantize_outputs: bool = True
    """Q/DQ after each integer operator (ONNX Runtime), or on inputs only (TensorRT)."""
    absorb_relu: bool = True
    """Relu/Clip after an integer operator is absorbed into the output quantizer's range."""
    residual_inputs: bool = True
    """Whether the residual input of a skip Add is quantized."""
    residual_products: bool = True
    """Whether it is so also where no weighted operator reads it: a projected skip, the stream of a pre-norm network."""
    direct_channels: int = 0
    """Convolutions of up to this many input channels stay float: the runtime's float kernel reads them directly, which
    is faster than integers, and their input keeps its precision."""
    packs: int = 0
    """Pixels of a row that the backend packs into channels: where rows are a multiple of it, integers are faster than
    the direct kernel, and such convolutions run on integers all the same. 0: it packs none."""
    packs_from: int = 64
    """Pixels of a row from which that holds at every batch size; in smaller images pixels keep their precision."""
    grid_below: int = 0
    """Pixels of a row below which a first convolution that packs pixels reads 8-bit images on their own grid, so that
    integers cost it no precision; 0: such convolutions stay as the fields above say."""
    tiles: bool = False
    """Whether products are computed on tiles (AMX), where they cost little beside pixels: packs that add many of them
    pay all the same."""
    dynamic_ops: tuple[str, ...] = ()
    """Operators that have a dynamically quantized kernel on this target."""
    float_types: tuple[str, ...] = ("float32",)
    """Float types with kernels of their own: `float32`, `float16`, `bfloat16`."""
    weight_only_bits: tuple[int, ...] = ()
    """Weight-only widths with a kernel (`MatMulNBits`: 4, 8)."""
    weight_only_codes: tuple[str, ...] = ("linear",)
    """Codes of weight-only levels: `linear`, `nf4` (`MatMulBnb4`), `kmeans` (standard operators decode it at load)."""
    block_kernels: tuple[str, ...] = ("MatMulNBits",)
    """How weights in blocks may stand in the graph, the one that `weight-only` writes first: `MatMulNBits`, or
    `DequantizeLinear` of int4 (which alone can stand in a static plan)."""
    block_ops: tuple[str, ...] = ("Gemm", "MatMul")
    """Operators whose weights may be int4 in blocks as `DequantizeLinear`."""
    fused_ops: tuple[str, ...] = ()
    """Operators rendered as the runtime's own kernel with integer inputs, float bias and float output
    (`MatMul` → `com.microsoft.MatMulIntegerToFloat`) where their output stays float."""
    table_ops: tuple[str, ...] = ()
    """Lookups whose constant tables are stored as int8 rows with a scale each (`Gather` of an embedding)."""
