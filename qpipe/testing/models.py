"""Small networks for contract tests: one in which every quantizer finds work, one with inputs and outputs to mix up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qpipe.plugins.backend import Tensors
from qpipe.records.model import Model

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
CLASSES = 3


def write_small_model(folder: Path) -> Model:
    """`small.onnx` in `folder`: image float32 [N, 1, 8, 8] → logits float32 [N, 3]."""
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
    return _write(folder, "small", nodes, shapes, inputs={"image": (1, 8, 8)}, outputs={"logits": (CLASSES,)})


def write_pair_model(folder: Path) -> Model:
    """`pair.onnx` in `folder`: right, left float32 [N, 6] → sum, difference float32 [N, 4]; nodes are the other way."""
    nodes = [
        helper.make_node("Gemm", ["left", "w1", "b1"], ["l1"], name="of_left"),
        helper.make_node("Gemm", ["right", "w2", "b2"], ["r1"], name="of_right"),
        helper.make_node("Sub", ["r1", "l1"], ["difference"], name="subtract"),
        helper.make_node("Add", ["r1", "l1"], ["sum"], name="add"),
    ]
    inputs, outputs = {"right": (6,), "left": (6,)}, {"sum": (4,), "difference": (4,)}
    shapes = {"w1": (6, 4), "b1": (4,), "w2": (6, 4), "b2": (4,)}
    return _write(folder, "pair", nodes, shapes, inputs=inputs, outputs=outputs)


def pair_rows(count: int) -> dict[str, NDArray[np.float32]]:
    """Rows for that network, not in its signature's order."""
    random = np.random.default_rng(4)
    return {name: random.normal(size=(count, 6)).astype(np.float32) for name in ("left", "right")}


def _write(
    folder: Path, name: str, nodes: list[onnx.NodeProto], weights: Shapes, *, inputs: Shapes, outputs: Shapes
) -> Model:
    from qpipe.models import read_model

    random = np.random.default_rng(0)
    taken, given = (
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, ["N", *shape]) for key, shape in shapes.items()]
        for shapes in (inputs, outputs)
    )
    values = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), key) for key, shape in weights.items()
    ]
    graph = helper.make_graph(nodes, name, taken, given, values)
    path = folder / f"{name}.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return read_model(path, name=name, origin=str(path))


def small_rows(count: int, seed: int = 1) -> NDArray[np.float32]:
    """Images for the small network, float32 [count, 1, 8, 8]."""
    return np.random.default_rng(seed).normal(size=(count, 1, 8, 8)).astype(np.float32)


def small_batches() -> Iterator[Tensors]:
    """Calibration for the small network: four batches of eight."""
    for seed in range(4):
        yield {"image": small_rows(8, seed)}
