"""Networks for tests and benchmarks, made by hand with explicit Q/DQ by TensorRT's rules; weights are random."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
FP8 = TensorProto.FLOAT8E4M3FN


class Net:
    """Adds operators to a graph; `kind` is `float`, `int8` (pairs on inputs), `naive` (outputs too) or `fp8`."""

    def __init__(self, kind: str = "int8", seed: int = 0) -> None:
        self.kind = kind
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def random(self, *shape: int) -> np.ndarray:
        return (self._random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def op(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"{output}.{op}", **attributes))
        return output

    def named(self, name: str, op: str, inputs: Sequence[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}_y"], name=name, **attributes))
        return f"{name}_y"

    def pair(self, tensor: str, name: str, scale: float = 0.05) -> str:
        """Q and DQ of an activation."""
        if self.kind == "float":
            return tensor
        self.constant(f"{name}_s", np.array(scale, np.float32))
        self._zero(f"{name}_z", ())
        for op, source, made in (("QuantizeLinear", tensor, "q"), ("DequantizeLinear", f"{name}_q", "dq")):
            self.nodes.append(
                helper.make_node(op, [source, f"{name}_s", f"{name}_z"], [f"{name}_{made}"], name=f"{name}_{op[0]}")
            )
        return f"{name}_dq"

    def weight(self, value: np.ndarray, name: str, axis: int = 0) -> str:
        """A weight behind a DQ with one scale per channel."""
        if self.kind == "float":
            return self.constant(name, value)
        reduced = tuple(index for index in range(value.ndim) if index != axis)
        scale = (np.abs(value).max(axis=reduced) / (448 if self.kind == "fp8" else 127)).astype(np.float32)
        shape = [-1 if index == axis else 1 for index in range(value.ndim)]
        stored = value / scale.reshape(shape)
        if self.kind == "fp8":
            raw = stored.astype(ml_dtypes.float8_e4m3fn).tobytes()
            self.constants.append(helper.make_tensor(f"{name}_q", FP8, value.shape, raw, raw=True))
        else:
            self.constant(f"{name}_q", np.rint(stored).astype(np.int8))
        self.constant(f"{name}_s", scale)
        self._zero(f"{name}_z", scale.shape)
        inputs = [f"{name}_q", f"{name}_s", f"{name}_z"]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], name=f"{name}_D", axis=axis))
        return f"{name}_dq"

    def conv(self, x: str, name: str, sizes: tuple[int, int, int], *, relu: bool = True, **attributes: object) -> str:
        """Conv of (in, out, kernel) with a float bias, and a Relu behind it."""
        into, out, kernel = sizes
        weight = self.weight(self.random(out, into, kernel, kernel), f"{name}_w")
        bias = self.constant(f"{name}_b", self.random(out, 1)[:, 0])
        attributes.setdefault("pads", [kernel // 2] * 4)
        y = self.named(name, "Conv", [self.pair(x, f"{name}_in"), weight, bias], **attributes)
        if self.kind == "naive":
            y = self.pair(y, f"{name}_out")
        return self.op("Relu", [y], f"{name}_r") if relu else y

    def residual(self, x: str, skip: str, name: str, *, projected: bool = False) -> str:
        """Skip Add with a quantized residual input where no convolution makes it for the Add alone, and a Relu."""
        total = self.named(name, "Add", [x, skip if projected else self.pair(skip, f"{name}_skip")])
        return self.op("Relu", [total], f"{name}_r")

    def classify(self, x: str, channels: int, classes: int) -> None:
        """Global average pool, Flatten, Gemm into `logits`."""
        pooled = self.op("GlobalAveragePool", [x], "pooled")
        flat = self.pair(self.op("Flatten", [pooled], "flat"), "fc_in")
        weight = self.weight(self.random(classes, channels), "fc_w")
        bias = self.constant("fc_b", self.random(classes, 1)[:, 0])
        self.nodes.append(helper.make_node("Gemm", [flat, weight, bias], ["logits"], name="fc", transB=1))

    def model(
        self, inputs: dict[str, tuple[object, ...]], outputs: dict[str, tuple[object, ...]], opset: int = 21
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
            self.constants,
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my.ops", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.checker.check_model(model)
        return model

    def _zero(self, name: str, shape: tuple[int, ...]) -> None:
        kind, count = (FP8 if self.kind == "fp8" else TensorProto.INT8), int(np.prod(shape, dtype=int))
        self.constants.append(helper.make_tensor(name, kind, shape, b"\0" * count, raw=True))


def small(kind: str = "int8") -> onnx.ModelProto:
    """Three convolutions with one skip, and a classifier: 16×16 inputs."""
    net = Net(kind)
    a = net.conv("input", "c1", (3, 16, 3))
    b = net.conv(a, "c2", (16, 16, 3), relu=False)
    net.classify(net.conv(net.residual(b, a, "add"), "c3", (16, 32, 3), strides=[2, 2]), 32, 10)
    return net.model({"input": ("N", 3, 16, 16)}, {"logits": ("N", 10)})


def resnet20(kind: str = "int8") -> onnx.ModelProto:
    """ResNet-20 for 32×32 inputs with projection shortcuts: 22 products. Source: He et al. 2015, section 4.2."""
    net = Net(kind)
    x, into = net.conv("input", "stem", (3, 16, 3)), 16
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            y = net.conv(x, f"{name}a", (into, width, 3), strides=[stride] * 2)
            y = net.conv(y, f"{name}b", (width, width, 3), relu=False)
            skip = x if stride == 1 else net.conv(x, f"{name}s", (into, width, 1), relu=False, strides=[2, 2])
            x, into = net.residual(y, skip, f"{name}add", projected=stride > 1), width
    net.classify(x, 64, 10)
    return net.model({"input": ("N", 3, 32, 32)}, {"logits": ("N", 10)})


def resnet50(kind: str = "int8") -> onnx.ModelProto:
    """ResNet-50 for 224×224 inputs: 54 products, 25.5 million weights. Source: He et al. 2015, table 1."""
    net = Net(kind)
    x = net.conv("input", "stem", (3, 64, 7), strides=[2, 2])
    x, into = net.op("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            y = net.conv(x, f"{name}a", (into, width, 1))
            y = net.conv(y, f"{name}b", (width, width, 3), strides=[stride] * 2)
            y = net.conv(y, f"{name}c", (width, 4 * width, 1), relu=False)
            skip = x if block else net.conv(x, f"{name}s", (into, 4 * width, 1), relu=False, strides=[stride] * 2)
            x, into = net.residual(y, skip, f"{name}add", projected=not block), 4 * width
    net.classify(x, into, 1000)
    return net.model({"input": ("N", 3, 224, 224)}, {"logits": ("N", 1000)})


def depthwise(kind: str = "int8") -> onnx.ModelProto:
    """Depthwise-separable convolutions with kernels of 3 and 5."""
    net = Net(kind)
    x = net.conv("input", "stem", (3, 32, 3))
    x = net.conv(x, "dw1", (1, 32, 3), group=32)
    x = net.conv(x, "pw1", (32, 64, 1))
    x = net.conv(x, "dw2", (1, 64, 5), group=64)
    net.classify(net.conv(x, "pw2", (64, 32, 1)), 32, 10)
    return net.model({"input": ("N", 3, 16, 16)}, {"logits": ("N", 10)})


def transformer(kind: str = "int8", *, attention: bool = True, width: int = 64, heads: int = 4) -> onnx.ModelProto:
    """One encoder block, dynamic batch and length; `attention` quantizes QK and PV too."""
    net = Net(kind)
    split = net.constant("split", np.array([0, 0, heads, width // heads], np.int64))
    join = net.constant("join", np.array([0, 0, width], np.int64))

    def linear(x: str, name: str, into: int, out: int) -> str:
        y = net.named(name, "MatMul", [net.pair(x, f"{name}_in"), net.weight(net.random(into, out), f"{name}_w", 1)])
        return net.op("Add", [y, net.constant(f"{name}_b", net.random(out, 1)[:, 0])], f"{name}_biased")

    def head(name: str, perm: list[int]) -> str:
        y = net.op("Reshape", [linear("input", name, width, width), split], f"{name}_split")
        y = net.op("Transpose", [y], f"{name}_heads", perm=perm)
        return net.pair(y, f"{name}_act") if attention else y

    q, k, v = head("q", [0, 2, 1, 3]), head("k", [0, 2, 3, 1]), head("v", [0, 2, 1, 3])
    scores = net.named("qk", "MatMul", [q, k])
    scores = net.op("Mul", [scores, net.constant("root", np.array((heads / width) ** 0.5, np.float32))], "scaled")
    weights = net.op("Softmax", [scores], "weights", axis=-1)
    y = net.named("pv", "MatMul", [net.pair(weights, "p_act", 1 / 127) if attention else weights, v])
    y = net.op("Reshape", [net.op("Transpose", [y], "merged", perm=[0, 2, 1, 3]), join], "joined")
    y = net.op("Add", [linear(y, "proj", width, width), "input"], "mid")
    one, none = net.constant("gamma", np.ones(width, np.float32)), net.constant("beta", np.zeros(width, np.float32))
    y = net.op("LayerNormalization", [y, one, none], "normed")
    up = net.op("Gelu", [linear(y, "up", width, 4 * width)], "gelu")
    net.op("Add", [linear(up, "down", 4 * width, width), y], "out")
    return net.model({"input": ("N", "L", width)}, {"out": ("N", "L", width)})


def prenorm(kind: str = "int8", width: int = 64) -> onnx.ModelProto:
    """Two feed-forward blocks, each normed before it: no product reads the stream that their Adds go on with."""
    net = Net(kind)
    one, none = net.constant("gamma", np.ones(width, np.float32)), net.constant("beta", np.zeros(width, np.float32))

    def linear(x: str, name: str) -> str:
        weight = net.weight(net.random(width, width), f"{name}_w", 1)
        return net.named(name, "MatMul", [net.pair(x, f"{name}_in"), weight])

    x = net.op("Erf", ["input"], "stream")
    for block in "ab":
        y = net.op("LayerNormalization", [x, one, none], f"{block}_normed")
        y = net.op("Relu", [linear(y, f"{block}1")], f"{block}_relu")
        x = net.op("Add", [x, linear(y, f"{block}2")], "out" if block == "b" else f"{block}_stream")
    return net.model({"input": ("N", "L", width)}, {"out": ("N", "L", width)})


def low_float(dtype: int) -> onnx.ModelProto:
    """Conv and MatMul in float16 or bfloat16, cast at the border: TensorRT 11 is strongly typed."""
    net, kind = Net("float"), helper.tensor_dtype_to_np_dtype(dtype)
    x = net.op("Cast", ["input"], "low", to=dtype)
    x = net.named("conv", "Conv", [x, net.constant("w", net.random(16, 8, 3, 3).astype(kind))], pads=[1] * 4)
    x = net.op("Flatten", [net.op("Relu", [x], "r")], "flat")
    x = net.named("mm", "MatMul", [x, net.constant("w2", net.random(16 * 64, 10).astype(kind))])
    net.op("Cast", [x], "out", to=FLOAT)
    return net.model({"input": ("N", 8, 8, 8)}, {"out": ("N", 10)})


def int4_weights() -> onnx.ModelProto:
    """A float16 MatMul with int4 weights in blocks of 64 along the reduced axis."""
    net = Net("float")
    net.constants.append(
        numpy_helper.from_array(np.random.default_rng(0).integers(-7, 8, (128, 64)).astype(ml_dtypes.int4), "w_q")
    )
    net.constant("w_s", np.full((2, 64), 0.05, np.float16))
    x = net.op("Cast", ["input"], "half", to=TensorProto.FLOAT16)
    w = net.op("DequantizeLinear", ["w_q", "w_s"], "w", axis=0, block_size=64)
    net.op("Cast", [net.named("mm", "MatMul", [x, w])], "out", to=FLOAT)
    return net.model({"input": ("N", 128)}, {"out": ("N", 64)})


def upsampling() -> onnx.ModelProto:
    """A quantized ConvTranspose."""
    net = Net()
    weight = net.weight(net.random(8, 16, 2, 2), "up_w", axis=1)
    y = net.named("up", "ConvTranspose", [net.pair("input", "up_in"), weight], strides=[2, 2])
    net.op("Relu", [y], "out")
    return net.model({"input": ("N", 8, 8, 8)}, {"out": ("N", 16, 16, 16)})


def one_node(op: str, domain: str = "") -> onnx.ModelProto:
    """A single operator named `odd` between input and output."""
    net = Net("float")
    net.nodes.append(helper.make_node(op, ["input"], ["out"], name="odd", domain=domain))
    return net.model({"input": ("N", 8)}, {"out": ("N", 8)})


def detection() -> onnx.ModelProto:
    """Boxes and scores into NonMaxSuppression."""
    net = Net("float")
    scores = net.constant("scores", np.full((1, 2, 8), 0.5, np.float32))
    most = net.constant("most", np.array([3], np.int64))
    net.nodes.append(helper.make_node("NonMaxSuppression", ["input", scores, most], ["kept"], name="nms"))
    net.op("Cast", ["kept"], "out", to=FLOAT)
    return net.model({"input": (1, 8, 4)}, {"out": ("K", 3)})


def doubled() -> onnx.ModelProto:
    """A Mul in float64 between casts."""
    net = Net("float")
    wide = net.op("Cast", ["input"], "wide", to=TensorProto.DOUBLE)
    wide = net.op("Mul", [wide, net.constant("two", np.array(2.0))], "product")
    net.op("Cast", [wide], "out", to=FLOAT)
    return net.model({"input": ("N", 8)}, {"out": ("N", 8)})


def with_zero_point(model: onnx.ModelProto, name: str, value: np.ndarray) -> onnx.ModelProto:
    """The model with one zero point changed."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(value, name))
    return model


def with_integer_bias(model: onnx.ModelProto, node: str = "c1") -> onnx.ModelProto:
    """The model with the bias of one Conv behind an int32 DQ, as ONNX Runtime likes it."""
    conv = next(item for item in model.graph.node if item.name == node)
    size = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == conv.input[2])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(size, np.int32), "bias_q"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(size, np.float32), "bias_s"))
    made = helper.make_node("DequantizeLinear", ["bias_q", "bias_s"], ["bias_dq"], name="bias_D", axis=0)
    model.graph.node.insert(0, made)
    conv.input[2] = "bias_dq"
    return model
