"""Graphs of every kind that a quantizer meets, as cases: what becomes of each, or why it is refused."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from networks import network


@dataclass(frozen=True)
class Case:
    name: str
    head: str
    body: str
    weights: dict = field(default_factory=dict)
    opset: int = 17
    kernels: dict = field(default_factory=dict)
    """Integer kernels that onnxruntime must make of it, by operator and number."""
    refused: str = ""
    least_db: float = 20.0
    left: str = ""
    """Part of a reason that some node stays float for."""


def newest_opset() -> int:
    """The newest opset that this onnx can write and this onnxruntime can load."""
    for opset in range(onnx.defs.onnx_opset_version(), 12, -1):
        model = network("(float[N] x) => (float[N] y)", "y = Neg(x)", {}, opset)
        try:
            ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        except Exception:  # noqa: BLE001 - onnxruntime has no class for "opset too new"
            continue
        return opset
    raise AssertionError


IMAGE = "(float[N,3,12,12] x) => (float[N,C] y)"
MAP = "(float[N,3,12,12] x) => (float[N,C,H,W] y)"
VECTOR = "(float[N,16] x) => (float[N,M] y)"
TOKENS = "(float[N,L,32] x) => (float[N,L,M] y)"
CONV = "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w, b)"
W = {"w": (8, 3, 3, 3), "b": (8,)}

CASES = [
    Case("conv", MAP, f"{CONV} y = Relu(c)", W, kernels={"QLinearConv": 1}),
    Case("conv-output", MAP, "y = Conv<kernel_shape=[3,3]>(x, w, b)", W, kernels={"QLinearConv": 1}),
    Case(
        "residual",
        MAP,
        f"{CONV} r = Relu(c) d = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(r, v, b) a = Add(d, r) s = Relu(a) "
        "y = Conv<kernel_shape=[1,1]>(s, u, b)",
        {**W, "v": (8, 8, 3, 3), "u": (8, 8, 1, 1)},
        kernels={"QLinearConv": 3, "QLinearAdd": 1},
    ),
    Case(
        "concat",
        MAP,
        f"{CONV} r = Relu(c) d = Conv<kernel_shape=[1,1]>(x, k, b) j = Concat<axis=1>(r, d) "
        "y = Conv<kernel_shape=[1,1]>(j, u, b)",
        {**W, "k": (8, 3, 1, 1), "u": (8, 16, 1, 1)},
        kernels={"QLinearConv": 3, "QLinearConcat": 1},
    ),
    Case(
        "depthwise-pad-clip",
        MAP,
        "p = Pad(x, pads) c = Conv<kernel_shape=[3,3],group=3>(p, w, b) r = Clip(c, lo, hi) "
        "y = Conv<kernel_shape=[1,1]>(r, k, v)",
        {
            "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
            "w": (3, 1, 3, 3),
            "b": (3,),
            "lo": np.float32(0),
            "hi": np.float32(6),
            "k": (8, 3, 1, 1),
            "v": (8,),
        },
        kernels={"QLinearConv": 2},
    ),
    Case(
        "batchnorm",
        MAP,
        "c = Conv<kernel_shape=[3,3]>(x, w) n = BatchNormalization(c, g, h, m, s) y = Relu(n)",
        {"w": (8, 3, 3, 3), "g": (8,), "h": (8,), "m": (8,), "s": np.linspace(0.5, 2, 8, dtype=np.float32)},
        kernels={"QLinearConv": 1},
    ),
    Case(
        "affine-after-conv",
        MAP,
        f"{CONV} m = Mul(c, s) y = Add(m, t)",
        {**W, "s": (8, 1, 1), "t": (1, 8, 1, 1)},
        kernels={"QLinearConv": 1},
    ),
    Case(
        "transposed-conv",
        MAP,
        "c = ConvTranspose<kernel_shape=[3,3],strides=[2,2]>(x, w, b) y = Conv<kernel_shape=[1,1]>(c, k, b)",
        {"w": (3, 8, 3, 3), "b": (8,), "k": (8, 8, 1, 1)},
        kernels={"QLinearConv": 1},
    ),
    Case("grouped", MAP, "y = Conv<kernel_shape=[3,3],group=3>(x, w, b)", {"w": (9, 1, 3, 3), "b": (9,)}),
    Case("dilated-strided", MAP, "y = Conv<kernel_shape=[3,3],dilations=[2,2],strides=[2,2]>(x, w, b)", W),
    Case("same-upper", MAP, 'y = Conv<kernel_shape=[3,3],auto_pad="SAME_UPPER",strides=[2,2]>(x, w, b)', W),
    Case(
        "conv1d",
        "(float[N,4,20] x) => (float[N,C,L] y)",
        "y = Conv<kernel_shape=[3]>(x, w, b)",
        {"w": (6, 4, 3), "b": (6,)},
    ),
    Case(
        "conv3d",
        "(float[N,2,6,6,6] x) => (float[N,C,D,H,W] y)",
        "y = Conv<kernel_shape=[3,3,3]>(x, w, b)",
        {"w": (4, 2, 3, 3, 3), "b": (4,)},
    ),
    Case(
        "pooling",
        IMAGE,
        f"{CONV} r = Relu(c) p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r) q = Conv<kernel_shape=[1,1]>(p, u, b) "
        "g = GlobalAveragePool(q) f = Flatten(g) y = Gemm<transB=1>(f, k, v)",
        {**W, "u": (8, 8, 1, 1), "k": (5, 8), "v": (5,)},
        kernels={"QLinearConv": 2, "QLinearGlobalAveragePool": 1, "QGemm": 1},
    ),
    Case(
        "silu",
        MAP,
        f"{CONV} s = Sigmoid(c) m = Mul(c, s) y = Conv<kernel_shape=[1,1]>(m, u, b)",
        {**W, "u": (8, 8, 1, 1)},
        kernels={"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1},
    ),
    Case(
        "leaky",
        MAP,
        f"{CONV} s = LeakyRelu<alpha=0.1>(c) y = Conv<kernel_shape=[1,1]>(s, u, b)",
        {**W, "u": (8, 8, 1, 1)},
        kernels={"QLinearConv": 2, "QLinearLeakyRelu": 1},
    ),
    Case(
        "hardswish",
        MAP,
        f"{CONV} s = HardSwish(c) y = Conv<kernel_shape=[1,1]>(s, u, b)",
        {**W, "u": (8, 8, 1, 1)},
        kernels={"QLinearConv": 2},
    ),
    Case(
        "resize",
        MAP,
        f'{CONV} s = Resize<mode="nearest">(c, , scales) y = Conv<kernel_shape=[1,1]>(s, u, b)',
        {**W, "u": (8, 8, 1, 1), "scales": np.array([1, 1, 2, 2], np.float32)},
        kernels={"QLinearConv": 2},
    ),
    Case(
        "split",
        MAP,
        f"{CONV} a, d = Split<axis=1>(c, sizes) e = Conv<kernel_shape=[1,1]>(a, u, t) "
        "f = Conv<kernel_shape=[1,1]>(d, u, t) y = Add(e, f)",
        {**W, "sizes": np.array([4, 4]), "u": (4, 4, 1, 1), "t": (4,)},
        kernels={"QLinearConv": 3},
    ),
    Case(
        "selection-shortcut",
        MAP,
        "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]>(x, w, b) s = Slice(x, st, en, ax, by) "
        "p = Pad(s, pads) a = Add(c, p) r = Relu(a) y = Conv<kernel_shape=[1,1]>(r, u, b)",
        {
            "w": (9, 3, 3, 3),
            "b": (9,),
            "st": np.array([0, 0]),
            "en": np.array([2**31 - 1, 2**31 - 1]),
            "ax": np.array([2, 3]),
            "by": np.array([2, 2]),
            "pads": np.array([0, 3, 0, 0, 0, 3, 0, 0]),
            "u": (9, 9, 1, 1),
        },
        kernels={"QLinearConv": 3, "QLinearAdd": 1},
    ),
    Case(
        "reflect-pad",
        MAP,
        'p = Pad<mode="reflect">(x, pads) y = Conv<kernel_shape=[3,3]>(p, w, b)',
        {**W, "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    ),
    Case(
        "instance-norm",
        MAP,
        f"{CONV} n = InstanceNormalization(c, s, s) y = Conv<kernel_shape=[1,1]>(n, u, b)",
        {**W, "s": (8,), "u": (8, 8, 1, 1)},
    ),
    Case("gemm", VECTOR, "g = Gemm<transB=1>(x, w, b) y = Relu(g)", {"w": (8, 16), "b": (8,)}, kernels={"QGemm": 1}),
    Case(
        "gemm-chain",
        VECTOR,
        "g = Gemm(x, w, b) r = Relu(g) y = Gemm<alpha=0.5,beta=2.0>(r, v, b)",
        {"w": (16, 8), "b": (8,), "v": (8, 8)},
        kernels={"QGemm": 2},
    ),
    Case("gemm-row-bias", VECTOR, "y = Gemm(x, w, b)", {"w": (16, 8), "b": (1, 8)}, kernels={"QGemm": 1}),
    Case(
        "gemm-transposed-data",
        "(float[16,N] x) => (float[N,M] y)",
        "y = Gemm<transA=1>(x, w, b)",
        {"w": (16, 8), "b": (8,)},
        refused="transA",
    ),
    Case("matmul", TOKENS, "y = MatMul(x, w)", {"w": (32, 8)}, kernels={"MatMulIntegerToFloat": 1}),
    Case(
        "matmul-bias-rank2", VECTOR, "m = MatMul(x, w) y = Add(m, b)", {"w": (16, 8), "b": (8,)}, kernels={"QGemm": 1}
    ),
    Case("matmul-batched-weights", "(float[4,L,8] x) => (float[4,L,M] y)", "y = MatMul(x, w)", {"w": (4, 8, 6)}),
    Case(
        "matmul-constant-left",
        "(float[8,N] x) => (float[M,N] y)",
        "y = MatMul(w, x)",
        {"w": (4, 8)},
        refused="constant",
    ),
    Case(
        "transformer",
        TOKENS,
        "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) "
        "d = Mul(s, scale) p = Softmax<axis=-1>(d) c = MatMul(p, v) o = MatMul(c, wo) e = Add(o, bo) a = Add(e, x) "
        "n = LayerNormalization<axis=-1>(a, g, h) f = MatMul(n, w1) i = Add(f, b1) j = Relu(i) u = MatMul(j, w2) "
        "z = Add(u, b2) y = Add(z, n)",
        {
            **dict.fromkeys(("wq", "wk", "wv", "wo"), (32, 32)),
            "bo": (32,),
            "g": (32,),
            "h": (32,),
            "w1": (32, 64),
            "b1": (64,),
            "w2": (64, 32),
            "b2": (32,),
            "scale": np.float32(0.2),
        },
        kernels={"MatMulIntegerToFloat": 6},
        left="both inputs are activations",
    ),
    Case(
        "embedding",
        "(int64[N,L] x) => (float[N,L,M] y)",
        "e = Gather(t, x) y = MatMul(e, w)",
        {"t": (50, 16), "w": (16, 8)},
        kernels={"MatMulIntegerToFloat": 1},
    ),
    Case(
        "large-embedding",
        "(int64[N,L] x) => (float[N,L,M] y)",
        "e = Gather(t, x) y = MatMul(e, w)",
        {"t": (1100, 16), "w": (16, 8)},
        kernels={"MatMulIntegerToFloat": 1, "Gather": 2},
    ),
    Case(
        "lstm",
        "(float[L,N,8] x) => (float[L,N,M] y)",
        "h, a, c = LSTM<hidden_size=6>(x, w, r, b) s = Squeeze(h, one) y = MatMul(s, k)",
        {"w": (1, 24, 8), "r": (1, 24, 6), "b": (1, 48), "k": (6, 4), "one": np.array([1])},
        kernels={"MatMulIntegerToFloat": 1},
    ),
    Case(
        "gru",
        "(float[L,N,8] x) => (float[L,N,M] y)",
        "h, a = GRU<hidden_size=6>(x, w, r) s = Squeeze(h, one) y = MatMul(s, k)",
        {"w": (1, 18, 8), "r": (1, 18, 6), "k": (6, 4), "one": np.array([1])},
        kernels={"MatMulIntegerToFloat": 1},
    ),
    Case(
        "if",
        "(float[N,16] x) => (float[N,M] y)",
        "m = ReduceMax<keepdims=0>(x) f = Greater(m, zero) g = MatMul(x, w) "
        "y = If(f) <then_branch = t () => (float[N,M] p) { p = MatMul(g, v) }, "
        "else_branch = e () => (float[N,M] q) { q = Identity(g) }>",
        {"w": (16, 8), "v": (8, 8), "zero": np.float32(0)},
        left="subgraph",
    ),
    Case(
        "loop",
        "(float[N,8] x) => (float[N,8] y)",
        "g = MatMul(x, w) y = Loop(trips, , g) <body = b (int64 i, bool c, float[N,8] s) => (bool d, float[N,8] o) "
        "{ d = Identity(c) h = MatMul(s, v) o = Tanh(h) }>",
        {"w": (8, 8), "v": (8, 8), "trips": np.array(3)},
        left="subgraph",
    ),
    Case(
        "shared-weights",
        "(float[N,16] x) => (float[N,16] y)",
        "a = Gemm(x, w, b) r = Relu(a) c = Gemm(r, w, b) d = Gemm<transB=1>(c, w, b) y = Relu(d)",
        {"w": (16, 16), "b": (16,)},
        kernels={"QGemm": 3},
    ),
    Case(
        "two-inputs",
        "(float[N,16] x, float[N,16] z) => (float[N,M] y)",
        "a = MatMul(x, w) c = MatMul(z, w) y = Add(a, c)",
        {"w": (16, 8)},
    ),
    Case(
        "intermediate-output",
        "(float[N,3,12,12] x) => (float[N,C,H,W] y, float[N,C,H,W] r)",
        f"{CONV} r = Relu(c) y = Conv<kernel_shape=[1,1]>(r, u, b)",
        {**W, "u": (8, 8, 1, 1)},
        kernels={"QLinearConv": 2},
    ),
    Case(
        "zero-channel",
        MAP,
        f"{CONV} y = Relu(c)",
        {"w": np.eye(8, 27, k=-3, dtype=np.float32).reshape(8, 3, 3, 3), "b": (8,)},
    ),
    Case(
        "constant-activation",
        VECTOR,
        "z = Mul(x, zero) g = Gemm(z, w, b) y = Relu(g)",
        {"zero": np.float32(0), "w": (16, 8), "b": (8,)},
    ),
    Case(
        "negative-only",
        VECTOR,
        "n = Abs(x) m = Neg(n) y = Gemm(m, w, b)",
        {"w": (16, 8), "b": (8,)},
        kernels={"QGemm": 1},
    ),
    Case("opset-11", MAP, f"{CONV} y = Relu(c)", W, opset=11, kernels={"QLinearConv": 1}),
    Case(
        "opset-12",
        IMAGE,
        f"{CONV} g = GlobalAveragePool(c) f = Flatten(g) y = Gemm(f, k, b)",
        {**W, "k": (8, 8)},
        opset=12,
        kernels={"QGemm": 1},
    ),
    Case(
        "inverted-residual",
        MAP,
        "p = Conv<kernel_shape=[1,1]>(x, w, b) e = Clip(p, lo, hi) "
        "d = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group=8>(e, v, b) r = Clip(d, lo, hi) "
        "q = Conv<kernel_shape=[1,1]>(r, u, t) y = Add(q, x)",
        {
            "w": (8, 3, 1, 1),
            "b": (8,),
            "v": (8, 1, 3, 3),
            "u": (3, 8, 1, 1),
            "t": (3,),
            "lo": np.float32(0),
            "hi": np.float32(6),
        },
        kernels={"QLinearConv": 3},
    ),
    Case(
        "unet",
        MAP,
        f"{CONV} r = Relu(c) p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r) "
        "m = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(p, v, b) n = Relu(m) "
        "d = ConvTranspose<kernel_shape=[2,2],strides=[2,2]>(n, t) j = Concat<axis=1>(d, r) "
        "y = Conv<kernel_shape=[1,1]>(j, u, b)",
        {**W, "v": (8, 8, 3, 3), "t": (8, 8, 2, 2), "u": (8, 16, 1, 1)},
        kernels={"QLinearConv": 3},
    ),
    Case(
        "squeeze-excite",
        MAP,
        f"{CONV} g = GlobalAveragePool(c) d = Conv<kernel_shape=[1,1]>(g, u, t) r = Relu(d) "
        "e = Conv<kernel_shape=[1,1]>(r, v, b) s = Sigmoid(e) m = Mul(c, s) y = Conv<kernel_shape=[1,1]>(m, k, b)",
        {**W, "u": (4, 8, 1, 1), "t": (4,), "v": (8, 4, 1, 1), "k": (8, 8, 1, 1)},
        kernels={"QLinearConv": 4},
    ),
    Case(
        "multi-head-dynamic",
        TOKENS,
        "n = Shape<start=0,end=2>(x) i = Concat<axis=0>(n, heads) o = Concat<axis=0>(n, whole) "
        "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) "
        "q2 = Reshape(q, i) k2 = Reshape(k, i) v2 = Reshape(v, i) "
        "q3 = Transpose<perm=[0,2,1,3]>(q2) k3 = Transpose<perm=[0,2,3,1]>(k2) v3 = Transpose<perm=[0,2,1,3]>(v2) "
        "s = MatMul(q3, k3) p = Softmax<axis=-1>(s) c = MatMul(p, v3) c2 = Transpose<perm=[0,2,1,3]>(c) "
        "c3 = Reshape(c2, o) y = MatMul(c3, wo)",
        {
            **dict.fromkeys(("wq", "wk", "wv", "wo"), (32, 32)),
            "heads": np.array([4, 8]),
            "whole": np.array([32]),
        },
        kernels={"MatMulIntegerToFloat": 4},
        left="both inputs are activations",
    ),
    Case(
        "bidirectional-lstm",
        "(float[L,N,8] x) => (float[L,N,M] y)",
        'h, a, c = LSTM<hidden_size=6,direction="bidirectional">(x, w, r, b) t = Transpose<perm=[0,2,1,3]>(h) '
        "s = Reshape(t, flat) y = MatMul(s, k)",
        {"w": (2, 24, 8), "r": (2, 24, 6), "b": (2, 48), "k": (12, 4), "flat": np.array([0, 0, 12])},
        kernels={"MatMulIntegerToFloat": 1},
    ),
    Case(
        "scan",
        "(float[N,16] x) => (float[N,8] y)",
        "g = MatMul(x, w) s, y = Scan<num_scan_inputs=1, body = b (float[8] a, float[8] i) => (float[8] o, float[8] e) "
        "{ o = Add(a, i) e = Tanh(o) }>(first, g)",
        {"w": (16, 8), "first": np.zeros(8, np.float32)},
        kernels={"MatMulIntegerToFloat": 1},
    ),
    Case(
        "two-subgraphs",
        "(float[N,16] x) => (float[N,M] y)",
        "m = ReduceMax<keepdims=0>(x) f = Greater(m, zero) g = MatMul(x, w) "
        "i = If(f) <then_branch = t () => (float[N,M] p) { p = MatMul(g, v) }, "
        "else_branch = e () => (float[N,M] q) { q = Identity(g) }> "
        "y = Loop(trips, , i) <body = b (int64 k, bool c, float[N,8] s) => (bool d, float[N,8] o) "
        "{ d = Identity(c) h = MatMul(s, v) o = Tanh(h) }>",
        {"w": (16, 8), "v": (8, 8), "zero": np.float32(0), "trips": np.array(2)},
        left="subgraph",
    ),
    Case("opset-21", MAP, f"{CONV} y = Relu(c)", W, opset=21, kernels={"QLinearConv": 1}),
    Case("newest-opset", MAP, f"{CONV} y = Relu(c)", W, opset=newest_opset(), kernels={"QLinearConv": 1}),
    Case("no-weights", VECTOR, "y = Relu(x)", {}, refused="none of Conv"),
    Case(
        "already-qdq",
        VECTOR,
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w)",
        {"s": np.float32(0.1), "z": np.uint8(0), "w": (16, 8)},
        refused="quantized already",
    ),
    Case(
        "already-qoperator",
        VECTOR,
        "q = QuantizeLinear(x, s, z) p = MatMulInteger(q, w, z) y = Cast<to=1>(p)",
        {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((16, 8), np.int8)},
        refused="quantized already",
    ),
    Case(
        "dynamic-weights",
        "(float[N,16] x, float[16,8] w) => (float[N,8] y)",
        "y = Gemm(x, w)",
        {},
        refused="not constant",
    ),
]


def build(case: Case) -> onnx.ModelProto:
    rng = np.random.default_rng(7)
    arrays = {}
    for name, value in case.weights.items():
        array = value
        if isinstance(value, tuple):
            fan = max(int(np.prod(value[1:])), 1)
            array = (rng.standard_normal(value) * (0.3 if len(value) == 1 else fan**-0.5)).astype(np.float32)
            array = np.abs(array) + 0.5 if name == "g" else array
        arrays[name] = array
    return network(case.head, case.body, arrays, case.opset)


def rows_for(model: onnx.ModelProto, count: int = 24) -> dict:
    rng = np.random.default_rng(3)
    names = {tensor.name for tensor in model.graph.initializer}
    rows = {}
    for value in model.graph.input:
        if value.name in names:
            continue
        dims = [
            dim.dim_value or (count if axis == 0 else 10) for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        ]
        integers = value.type.tensor_type.elem_type == onnx.TensorProto.INT64
        rows[value.name] = rng.integers(0, 50, dims) if integers else rng.standard_normal(dims).astype(np.float32)
    return rows
