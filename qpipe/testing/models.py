"""A small network for contract tests: Conv, Relu, pool, Gemm; every quantizer finds work in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qpipe.plugins.backend import Tensors
from qpipe.records.model import Model

CLASSES = 3


def write_small_model(folder: Path) -> Model:
    """`small.onnx` in `folder`: image float32 [N, 1, 8, 8] → logits float32 [N, 3]."""
    from qpipe.models import read_model

    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], name="head"),
    ]
    shapes = {"w1": (4, 1, 3, 3), "b1": (4,), "w2": (8, 4, 3, 3), "b2": (8,), "w3": (8, CLASSES), "b3": (CLASSES,)}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()],
    )
    path = folder / "small.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return read_model(path, name="small", origin=str(path))


def small_rows(count: int, seed: int = 1) -> NDArray[np.float32]:
    """Images for the small network, float32 [count, 1, 8, 8]."""
    return np.random.default_rng(seed).normal(size=(count, 1, 8, 8)).astype(np.float32)


def small_batches() -> Iterator[Tensors]:
    """Calibration for the small network: four batches of eight."""
    for seed in range(4):
        yield {"image": small_rows(8, seed)}
