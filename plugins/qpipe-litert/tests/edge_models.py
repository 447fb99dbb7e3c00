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

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Scikit-learn's digits as [n, 1, 8, 8] float32 of 0 to 1, split in fixed order."""

    train: Floats
    train_label: NDArray[np.int64]
    gate: Floats
    gate_label: NDArray[np.int64]


def digits() -> Digits:
    from sklearn.datasets import load_digits

    data = load_digits()
    image = (data.images[:, None] / 16.0).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(image))
    train, gate = order[:1297], order[1297:]
    return Digits(train=image[train], train_label=data.target[train], gate=image[gate], gate_label=data.target[gate])


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
    graph.head(graph.channels)
    return graph.model()


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
