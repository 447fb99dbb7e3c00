"""Is the first convolution of an image faster in float or on integers? Onnxruntime on this CPU, one thread.

    python docs/benchmarks/first_convolution.py [--rounds 150]

Nets of three convolutions with random weights: the same `int8` recipe with the first one in float (as the x86 scheme
has it for up to three channels) and on integers. Median of per-round ratios of thread CPU time, both in one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from qpipe.quant.graph import save_graph
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.quant.static import quantize_static

Shape = tuple[int, int, int, int, int]

SHAPES = (
    # input channels, output channels, kernel, stride, size
    (1, 16, 3, 1, 28),
    (1, 32, 3, 1, 8),
    (1, 32, 3, 2, 224),
    (3, 16, 3, 1, 32),
    (3, 32, 3, 2, 224),
    (3, 64, 7, 2, 224),
    (4, 16, 3, 1, 32),
    (8, 16, 3, 1, 32),
    (8, 32, 3, 2, 112),
    (12, 32, 3, 1, 112),
    (16, 32, 3, 1, 56),
)


def net(path: Path, shape: Shape) -> None:
    """Three convolutions with Relu, and a mean over the image."""
    channels, width, kernel, stride, size = shape
    random = np.random.default_rng(0)
    constants, nodes, data = [], [], "input"
    for number in range(3):
        size_of = (width, channels, kernel, kernel) if number == 0 else (width, width, 3, 3)
        weights = (random.standard_normal(size_of) / np.sqrt(np.prod(size_of[1:]))).astype(np.float32)
        constants += [
            numpy_helper.from_array(weights, f"w{number}"),
            numpy_helper.from_array(np.zeros(width, np.float32), f"b{number}"),
        ]
        nodes += [
            helper.make_node(
                "Conv",
                [data, f"w{number}", f"b{number}"],
                [f"c{number}"],
                name=f"conv{number}",
                pads=[size_of[2] // 2] * 4,
                strides=[stride if number == 0 else 1] * 2,
            ),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"], name=f"relu{number}"),
        ]
        data = f"r{number}"
    nodes.append(helper.make_node("GlobalAveragePool", [data], ["output"], name="mean"))
    border = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", channels, size, size])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", width, 1, 1])
    graph = helper.make_graph(nodes, "net", [border], [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def session(path: Path) -> onnxruntime.InferenceSession:
    """One thread, without spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare(folder: Path, shape: Shape, rounds: int) -> str:
    """One line of the table."""
    channels, _, _, _, size = shape
    random = np.random.default_rng(1)
    net(folder / "float.onnx", shape)

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(2):
            yield {"input": random.standard_normal((4, channels, size, size)).astype(np.float32)}

    engines = {"float model": session(folder / "float.onnx")}
    for name, direct in (("integers", 0), ("float first", channels)):
        found = quantize_static(folder / "float.onnx", batches, replace(ORT_X86_VNNI, direct_channels=direct))
        save_graph(found.qdq, folder / f"{name}.onnx")
        engines[name] = session(folder / f"{name}.onnx")
    feed = {"input": random.standard_normal((1, channels, size, size)).astype(np.float32)}
    taken: dict[str, list[int]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            began = time.thread_time_ns()
            engine.run(None, feed)
            taken[name].append(time.thread_time_ns() - began)
    ratio = np.median(np.array(taken["float first"]) / np.array(taken["integers"]))
    times = " | ".join(f"{np.median(values) / 1e3:.0f}" for values in taken.values())
    return f"| {' × '.join(map(str, shape[:3]))}, stride {shape[3]}, {size}² | {times} | {ratio:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    rounds = parser.parse_args().rounds
    print("| first convolution: in × out × kernel | float model µs | integers µs | float first µs | float / integers |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for shape in SHAPES:
            print(compare(Path(folder), shape, rounds))


if __name__ == "__main__":
    main()
