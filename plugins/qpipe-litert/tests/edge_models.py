"""Small real models for the edge plugins' tests: random convolutions below, a least-squares head on top.

No gradient descent is needed: the head is solved in closed form, so the classifier is trained in a second and is
the same on every machine up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qpipe.engines import read_engine, write_engine
from qpipe.plugins.backend import Backend
from qpipe.quant.schemes import LITERT
from qpipe.records.engine import Engine, Prepared
from qpipe.records.model import OnnxFile
from qpipe.records.quantization import ActivationSpec, Mode, QuantPlan, WeightSpec
from qpipe.records.target import Target
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.testing.progress import Silent

Floats = NDArray[np.float32]


DEMO = Path(__file__).parents[3] / "pipelines" / "digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """The demo's rows as [n, 1, 8, 8] float32, scaled as its pipeline scales them."""

    calibration: Floats
    search: Floats
    gate: Floats
    label: NDArray[np.int64]
    calibration_label: NDArray[np.int64]


def digits() -> Digits:
    calibration, search, gate = (np.load(DEMO / f"{role}.npz") for role in ("calibration", "search", "gate"))
    return Digits(
        calibration=_scaled(calibration["image"]),
        search=_scaled(search["image"]),
        gate=_scaled(gate["image"]),
        label=gate["label"],
        calibration_label=calibration["label"],
    )


def _scaled(image: NDArray[np.uint8]) -> Floats:
    return ((image * np.float32(0.0625) - np.float32(0.5)) / np.float32(0.25)).astype(np.float32)


def digits_net() -> onnx.ModelProto:
    return onnx.load(DEMO / "digits.onnx")


class Graph:
    """Writes ONNX nodes one after the other; `last` is the tensor that the next node takes."""

    def __init__(self, seed: int, channels: int, size: tuple[int, int], batch: str | int = "N") -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = "image"
        self.channels = channels
        self.inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, *size])]
        self.batch = batch

    def weight(self, name: str, value: NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def op(self, kind: str, *more: str, **attributes: object) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *more], [f"{name}_out"], name=name, **attributes))
        self.last = f"{name}_out"
        return self.last

    def conv(self, out: int, kernel: int = 3, stride: int = 1, *, depthwise: bool = False, relu: str = "Relu") -> str:
        group = self.channels if depthwise else 1
        fan_in = self.channels // group * kernel * kernel
        shape = (out, self.channels // group, kernel, kernel)
        index = len(self.nodes)
        value = self.rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        bias = self.rng.normal(0, 0.1, out).astype(np.float32)
        names = self.weight(f"w{index}", value), self.weight(f"b{index}", bias)
        pad = kernel // 2
        self.op("Conv", *names, kernel_shape=[kernel, kernel], strides=[stride] * 2, pads=[pad] * 4, group=group)
        self.channels = out
        if relu == "Relu":
            self.op("Relu")
        elif relu == "Relu6":
            self.op("Clip", self.weight(f"lo{index}", np.float32(0)), self.weight(f"hi{index}", np.float32(6)))
        return self.last

    def head(self, features: int, classes: int = 10) -> None:
        self.op("GlobalAveragePool")
        self.op("Flatten", axis=1)
        self.gemm(features, classes)

    def gemm(self, features: int, classes: int = 10) -> None:
        value = self.rng.normal(0, features**-0.5, (features, classes)).astype(np.float32)
        self.op("Gemm", self.weight("head_w", value), self.weight("head_b", np.zeros(classes, np.float32)))

    def model(self, output: str = "logits", shape: tuple[int | str, ...] = ("N", 10)) -> onnx.ModelProto:
        self.nodes[-1].output[0] = output
        out = helper.make_tensor_value_info(output, TensorProto.FLOAT, list(shape))
        graph = helper.make_graph(self.nodes, "g", self.inputs, [out], initializer=self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made)
        return made


def conv_net() -> onnx.ModelProto:
    """Conv, residual Add, MaxPool, Concat, Gemm: what a small classifier has; `image` [N,1,8,8]."""
    graph = Graph(1, 1, (8, 8))
    first = graph.conv(24)
    graph.conv(24, relu="")
    graph.op("Add", first)
    graph.op("Relu")
    graph.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    left = graph.conv(40)
    graph.last, graph.channels = left, 40
    right = graph.conv(24)
    graph.last = left
    graph.op("Concat", right, axis=1)
    graph.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    graph.op("Flatten", axis=1)
    graph.gemm(64 * 4)
    return graph.model()


def depthwise_net(
    size: int = 8, channels: int = 1, width: int = 32, strides: tuple[int, ...] = (1, 2)
) -> onnx.ModelProto:
    """Depthwise-separable blocks with Relu6, as phone networks have; `image` [N,channels,size,size]."""
    graph = Graph(2, channels, (size, size))
    graph.conv(width, stride=2 if size > 32 else 1, relu="Relu6")
    for stride in strides:
        graph.conv(graph.channels, stride=stride, depthwise=True, relu="Relu6")
        graph.conv(min(graph.channels * 2, 512), kernel=1, relu="Relu6")
    side = size
    for stride in (2 if size > 32 else 1, *strides):
        side //= stride
    if side > 8:
        graph.head(graph.channels)
    else:
        graph.op("Flatten", axis=1)
        graph.gemm(graph.channels * side * side)
    return graph.model()


def rank_three_net() -> onnx.ModelProto:
    """Two 1-D convolutions over `signal` [N,6,20]."""
    rng = np.random.default_rng(3)
    weights = [numpy_helper.from_array(rng.normal(0, 0.3, (6, 6, 3)).astype(np.float32), f"w{i}") for i in range(2)]
    nodes = [
        helper.make_node("Conv", ["signal", "w0"], ["c0"], name="c0", kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="r0"),
        helper.make_node("Conv", ["r0", "w1"], ["out"], name="c1", kernel_shape=[3], pads=[1, 1]),
    ]
    return _graph(nodes, weights, ("signal", ["N", 6, 20]), ("out", ["N", 6, 20]))


def single_op_net(op: str, **attributes: object) -> onnx.ModelProto:
    """One node over `image` [N,1,8,8]."""
    node = helper.make_node(op, ["image"], ["out"], name="only", **attributes)
    return _graph([node], [], ("image", ["N", 1, 8, 8]), ("out", None))


def attention_net() -> onnx.ModelProto:
    """One attention layer over `tokens` [N,8,16], with shapes computed at run time as exporters write them."""
    rng = np.random.default_rng(4)
    weights = [numpy_helper.from_array(rng.normal(0, 0.25, (16, 16)).astype(np.float32), name) for name in "qkvo"]
    ints = {"i0": [0], "heads": [8, 2, 8], "merged": [8, 16]}
    weights += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in ints.items()]
    weights.append(numpy_helper.from_array(np.float32(8**-0.5), "root"))
    weights.append(numpy_helper.from_array(rng.normal(0, 0.5, 16).astype(np.float32), "bias"))
    make = helper.make_node
    nodes = [make("Shape", ["tokens"], ["shape"]), make("Gather", ["shape", "i0"], ["rows"])]
    nodes += [
        make("Concat", ["rows", "heads"], ["split"], axis=0),
        make("Concat", ["rows", "merged"], ["join"], axis=0),
    ]
    for name in "qkv":
        nodes.append(make("MatMul", ["tokens", name], [f"{name}m"], name=f"{name}_proj"))
        nodes.append(make("Reshape", [f"{name}m", "split"], [f"{name}r"]))
        nodes.append(make("Transpose", [f"{name}r"], [f"{name}t"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]))
    nodes += [
        make("MatMul", ["qt", "kt"], ["qk"], name="qk"),
        make("Mul", ["qk", "root"], ["scores"]),
        make("Softmax", ["scores"], ["weights"], axis=-1),
        make("MatMul", ["weights", "vt"], ["pv"], name="pv"),
        make("Transpose", ["pv"], ["pt"], perm=[0, 2, 1, 3]),
        make("Reshape", ["pt", "join"], ["pj"]),
        make("MatMul", ["pj", "o"], ["om"], name="o_proj"),
        make("Add", ["bias", "om"], ["out"], name="o_bias"),
    ]
    return _graph(nodes, weights, ("tokens", ["N", 8, 16]), ("out", ["N", 8, 16]))


def _graph(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    taken: tuple[str, list[int | str]],
    given: tuple[str, list[int | str] | None],
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(taken[0], TensorProto.FLOAT, taken[1])]
    outputs = [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run_onnx(model: onnx.ModelProto | Path, image: Floats, outputs: list[str] | None = None) -> list[Floats]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(outputs, {session.get_inputs()[0].name: image})


def fitted(model: onnx.ModelProto, image: Floats, label: NDArray[np.int64], ridge: float = 1e-2) -> onnx.ModelProto:
    """The same net with its last Gemm solved by ridge regression on one-hot labels (Bishop, PRML, section 3.1.4)."""
    features = model.graph.node[-1].input[0]
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    probe.graph.output.append(helper.make_tensor_value_info(features, TensorProto.FLOAT, None))
    found = run_onnx(probe, image, [features])[0].astype(np.float64)
    design = np.hstack([found, np.ones((len(found), 1))])
    target = np.eye(10)[label] * 10
    penalty = ridge * len(found) * np.mean(found**2) * np.eye(design.shape[1])
    solved = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    weights = {weight.name: weight for weight in model.graph.initializer}
    weights["head_w"].CopyFrom(numpy_helper.from_array(solved[:-1].astype(np.float32), "head_w"))
    weights["head_b"].CopyFrom(numpy_helper.from_array(solved[-1].astype(np.float32), "head_b"))
    return model


def prepared(
    model: onnx.ModelProto, folder: Path, calibration: Floats | None = None, *, mode: Mode = "static", bits: int = 8
) -> Prepared:
    """A model on disk with a plan of plain minimum and maximum over `calibration`, or without a plan."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(model, path)
    file = OnnxFile(path=path, digest="0" * 64, size_bytes=path.stat().st_size)
    plan = None if calibration is None else minmax_plan(model, calibration, mode, bits)
    signature = Signature(
        inputs=tuple(_spec(value) for value in model.graph.input),
        outputs=tuple(_spec(value) for value in model.graph.output),
    )
    return Prepared(graph=file, plan=plan, qdq=None, shapes=(), signature=signature)


def minmax_plan(model: onnx.ModelProto, calibration: Floats, mode: Mode = "static", bits: int = 8) -> QuantPlan:
    taken = model.graph.input[0].name
    exposed = onnx.ModelProto.FromString(model.SerializeToString())
    given = [output.name for output in exposed.graph.output]
    names = given + [n for node in model.graph.node for n in node.output if n not in given]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names[len(given) :])
    found = dict(zip(names, run_onnx(exposed, calibration, names), strict=True)) | {taken: calibration}
    activations = []
    for name, values in found.items():
        if values.dtype == np.float32:
            low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
            scale = (high - low) / 255 or 1.0
            zero = int(np.clip(round(-128 - low / scale), -128, 127))
            activations.append(
                ActivationSpec(tensor=name, dtype="int8", low=low, high=high, scale=scale, zero_point=zero)
            )
    weights = tuple(
        WeightSpec(tensor=tensor.name, dtype="int8", bits=bits, symmetric=True, axis=0)
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1
    )
    return QuantPlan(scheme=LITERT, mode=mode, activations=tuple(activations), weights=weights, nodes=())


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dims = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape=dims)


def built_engine(backend: Backend, ready: Prepared, target: Target, workdir: Path) -> Engine:
    """The engine folder, as a worker makes it."""
    workdir.mkdir(parents=True)
    built = backend.build(ready, target, workdir, Silent())
    write_engine(
        workdir,
        built,
        model="m",
        model_digest="0" * 64,
        recipe="int8",
        target=target.name,
        backend=backend.name,
        signature=ready.signature,
    )
    return read_engine(workdir)


def sqnr_db(wanted: Floats, found: Floats) -> float:
    """10·log10(Σ ref² / Σ (ref − out)²)."""
    error = np.sum((wanted.astype(np.float64) - found) ** 2)
    return float(10 * np.log10(np.sum(wanted.astype(np.float64) ** 2) / max(error, 1e-30)))
