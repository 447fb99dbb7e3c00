"""Convolutions of few channels with and without packs of pixels: onnxruntime's QLinearConv on this CPU, one thread.

    python docs/benchmarks/packing.py [--rounds 100] [--batch 1]

Each line is one shape with random weights: the kernel alone, then the ratio of thread CPU time with each kind of packs
to it (pixels of the image / pixels of the result in a pack), the one that qpipe chooses in bold. For images of up to
three channels also the float convolution (with its Relu and a quantizer behind) and the quantizer that integers need
before. All variants of a line run in one process in random order; median of per-round ratios.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from machine import own_scheme
from onnx import TensorProto, helper, numpy_helper
from qpipe_onnxruntime.lower.choices import choice_of
from qpipe_onnxruntime.lower.pixels import ALONE, Packs, Rows, fits, pack_weights, packed_rows

REPEATS = 4
"""Convolutions of one graph, all on its input, each with weights of its own: onnxruntime merges equal ones."""
KINDS = tuple(
    Packs(image=image, result=result) for image, result in ((2, 2), (4, 4), (4, 2), (4, 1), (1, 2), (1, 4), (2, 4))
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A square convolution with padding that keeps the size (up to its stride)."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: int

    @property
    def rows(self) -> Rows:
        """How it runs along a row; patches (a kernel as wide as its stride) have no padding."""
        pad = 0 if self.kernel == self.stride else self.kernel // 2
        return Rows(width=self.size, kernel=self.kernel, left=pad, right=pad, stride=self.stride)


SHAPES = (
    *(Shape(1, 16, 3, 1, 28), Shape(1, 32, 3, 2, 224), Shape(3, 16, 3, 1, 32), Shape(3, 32, 3, 1, 32)),
    *(Shape(3, 64, 3, 1, 32), Shape(3, 32, 3, 2, 224), Shape(3, 64, 7, 2, 224), Shape(3, 96, 4, 4, 224)),
    *(Shape(4, 16, 3, 1, 32), Shape(4, 32, 3, 1, 32), Shape(4, 64, 3, 1, 32), Shape(4, 16, 3, 2, 64)),
    *(Shape(4, 32, 3, 2, 224), Shape(4, 64, 7, 2, 224)),
    *(Shape(4, 8, 3, 1, 32), Shape(8, 8, 3, 1, 32), Shape(8, 16, 3, 1, 32), Shape(12, 12, 3, 1, 32)),
    *(Shape(16, 8, 3, 1, 32), Shape(16, 16, 3, 1, 32), Shape(16, 16, 3, 1, 64), Shape(16, 24, 3, 1, 32)),
    *(Shape(16, 32, 3, 1, 32), Shape(20, 20, 3, 1, 32), Shape(24, 24, 3, 1, 32), Shape(32, 24, 3, 1, 32)),
    *(Shape(32, 16, 3, 1, 32), Shape(32, 32, 3, 1, 32), Shape(64, 8, 3, 1, 32), Shape(8, 8, 1, 1, 32)),
    *(Shape(32, 12, 1, 1, 32), Shape(8, 8, 3, 2, 32), Shape(12, 12, 5, 1, 32), Shape(4, 32, 5, 1, 32)),
    *(Shape(16, 16, 5, 1, 32), Shape(32, 32, 5, 1, 32), Shape(64, 64, 5, 1, 32), Shape(16, 16, 1, 1, 32)),
    *(Shape(24, 24, 1, 1, 32), Shape(16, 96, 1, 1, 32), Shape(16, 16, 3, 2, 32), Shape(8, 32, 3, 2, 112)),
    *(Shape(16, 32, 3, 2, 32), Shape(24, 48, 3, 2, 32)),
)


class Variant:
    """A graph with its input, and what its runs took."""

    def __init__(
        self, nodes: list[onnx.NodeProto], constants: dict[str, np.generic | np.ndarray], feed: np.ndarray
    ) -> None:
        element = TensorProto.FLOAT if feed.dtype == np.float32 else TensorProto.UINT8
        outputs = [name for node in nodes for name in node.output if name.startswith("y")]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", element, feed.shape)],
            [helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.feed, self.taken_ns = {"x": feed}, []

    def run(self) -> None:
        """One timed run."""
        began = time.thread_time_ns()
        self.session.run(None, self.feed)
        self.taken_ns.append(time.thread_time_ns() - began)


QUANTIZER = {"scale": np.float32(0.05), "zero": np.uint8(0)}


def integers(shape: Shape, packs: Packs, batch: int) -> Variant:
    """QLinearConv in NHWC on packs."""
    random, rows = np.random.default_rng(0), shape.rows
    packed = packed_rows(rows, packs)
    size, outputs = (shape.outputs, shape.inputs, shape.kernel, shape.kernel), shape.outputs * packs.result
    constants = {
        **{name: np.asarray(value) for name, value in QUANTIZER.items()},
        "ws": np.full(outputs, 1e-4, np.float32),
        "wz": np.zeros(outputs, np.int8),
        "b": np.tile(random.integers(-1000, 1000, shape.outputs).astype(np.int32), packs.result),
    }
    for number in range(REPEATS):
        constants[f"w{number}"] = pack_weights(random.integers(-127, 128, size).astype(np.int8), rows, packs)
    attributes = {
        "channels_last": 1,
        "pads": [rows.left, packed.left, rows.right, packed.right],
        "strides": [shape.stride, packed.stride],
    }
    nodes = []
    for number in range(REPEATS):
        inputs = ["x", "scale", "zero", f"w{number}", "ws", "wz", "scale", "zero", "b"]
        nodes.append(helper.make_node("QLinearConv", inputs, [f"y{number}"], domain="com.microsoft", **attributes))
    size = (batch, shape.size, packed.width, shape.inputs * packs.image)
    return Variant(nodes, constants, random.integers(0, 256, size).astype(np.uint8))


def floats(shape: Shape, batch: int) -> Variant:
    """Conv and Relu in float, quantized in NHWC."""
    random, pad = np.random.default_rng(0), shape.rows.left
    size = (shape.outputs, shape.inputs, shape.kernel, shape.kernel)
    constants = {
        **{name: np.asarray(value) for name, value in QUANTIZER.items()},
        **{f"w{number}": random.normal(size=size).astype(np.float32) for number in range(REPEATS)},
        "b": random.normal(size=shape.outputs).astype(np.float32),
    }
    nodes = []
    for number in range(REPEATS):
        nodes += [
            helper.make_node(
                "Conv", ["x", f"w{number}", "b"], [f"c{number}"], pads=[pad] * 4, strides=[shape.stride] * 2
            ),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
            helper.make_node("Transpose", [f"r{number}"], [f"t{number}"], perm=[0, 2, 3, 1]),
            helper.make_node("QuantizeLinear", [f"t{number}", "scale", "zero"], [f"y{number}"]),
        ]
    image = random.normal(size=(batch, shape.inputs, shape.size, shape.size)).astype(np.float32)
    return Variant(nodes, constants, image)


def quantizers(shape: Shape, batch: int) -> Variant:
    """The image quantized and turned to NHWC."""
    constants = {"zero": np.asarray(QUANTIZER["zero"])}
    nodes = []
    for number in range(REPEATS):
        constants[f"scale{number}"] = np.float32(0.05 + number / 100)
        nodes += [
            helper.make_node("QuantizeLinear", ["x", f"scale{number}", "zero"], [f"q{number}"]),
            helper.make_node("Transpose", [f"q{number}"], [f"y{number}"], perm=[0, 2, 3, 1]),
        ]
    image = np.random.default_rng(0).normal(size=(batch, shape.inputs, shape.size, shape.size))
    return Variant(nodes, constants, image.astype(np.float32))


def line(shape: Shape, rounds: int, batch: int) -> str:
    """One line of the table."""
    chosen = choice_of(own_scheme())((shape.outputs, shape.inputs, shape.kernel, shape.kernel), shape.rows)
    variants = {kind: integers(shape, kind, batch) for kind in (ALONE, *KINDS) if fits(shape.rows, kind)}
    others = [floats(shape, batch), quantizers(shape, batch)] if shape.inputs <= 3 else []
    turn, random = [*variants.values(), *others], np.random.default_rng(0)
    for _ in range(rounds + 5):
        for which in random.permutation(len(turn)):
            turn[which].run()
    base = np.array(variants[ALONE].taken_ns[5:])

    def cell(kind: Packs) -> str:
        if kind not in variants:
            return "–"
        found = f"{np.median(np.array(variants[kind].taken_ns[5:]) / base):.2f}"
        return f"**{found}**" if kind == chosen else found

    more = [f"{np.median(np.array(variant.taken_ns[5:]) / base):.2f}" for variant in others] or ["", ""]
    what = f"{shape.inputs} → {shape.outputs}, {shape.kernel}×{shape.kernel}, stride {shape.stride}, {shape.size}²"
    us = np.median(base) / REPEATS / 1e3
    return f"| {what} | {us:.0f} | {' | '.join(map(cell, KINDS))} | {' | '.join(more)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    chosen = parser.parse_args()
    heads = " | ".join(f"{kind.image}/{kind.result}" for kind in KINDS)
    print(f"| convolution | µs | {heads} | float, quantized behind | quantizer before |")
    print("|---" * (4 + len(KINDS)) + "|")
    for shape in SHAPES:
        print(line(shape, chosen.rounds, chosen.batch), flush=True)


if __name__ == "__main__":
    main()
