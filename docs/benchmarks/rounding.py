"""What is left to gain: optimal rounding of weights and cross-layer equalization, on the search rows.

QPIPE_BENCH_DATA=/folder/of/models python docs/benchmarks/rounding.py [--weights W.npz]

ResNet-20, and the trained depthwise network where its weights lie (see depthwise.py). Every line is SQNR of the logits,
with runtime optimizations off, so that float weights beside integer activations compute what the graph says. `float
weights` bounds what any rounding can reach as long as its errors do not cancel those of the activations. `GPTQ` rounds
each Conv and Gemm on 64 calibration rows (Frantar et al. 2023, arXiv:2210.17323): the layer-wise objective is that of
AdaRound (Nagel et al. 2020, arXiv:2004.10568), minimized column by column instead of by gradients.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from depthwise import CALIBRATED, rows_of, sqnr
from depthwise_net import build
from machine import describe_machine, require_data
from numpy.typing import NDArray
from quantization import Array, Feed

from qpipe.quant.calibration.calibrate import calibrate
from qpipe.quant.calibration.observed import observed_tensors
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.corrections.bias import correct_bias
from qpipe.quant.corrections.equalize import equalize
from qpipe.quant.edits import replace_constant, set_bias
from qpipe.quant.fold import fold
from qpipe.quant.graph import attr_int, attr_ints, constant, input_at, name_of, open_graph, save_graph
from qpipe.quant.plan import make_plan
from qpipe.quant.ranges import RangeRule, find_channel_ranges
from qpipe.quant.rendering.render import quantized_weight, render
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.quant.weights.gptq import gptq_blocks
from qpipe.records.quantization import QuantPlan

F32 = NDArray[np.float32]
SAMPLED, PATCHES = 64, 4096


class Bench:
    """One network with its rows."""

    def __init__(self, source: Path, data: Path, folder: Path) -> None:
        self.calibration, self.search = rows_of(data, "calibration"), rows_of(data, "search")
        self.path = folder / "tried.onnx"
        self.model = open_graph(source)
        fold(self.model)
        self.reference = self.run(self.model)

    def run(self, model: ir.Model) -> Array:
        """Logits of the search rows."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(save_graph(model, self.path)), options, providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(["logits"], feed)[0] for feed in self.search.batches(100)])

    def batches(self) -> Iterator[Feed]:
        """Calibration rows."""
        return self.calibration.batches(stop=CALIBRATED)

    def statistics(self, model: ir.Model, *, channels: bool = False) -> Statistics:
        """One pass over the calibration rows."""
        return calibrate(model, self.batches(), observed_tensors(model.graph, ORT_X86_VNNI), channels=channels)

    def int8(self, model: ir.Model, *, per_channel: bool = True) -> Array:
        """Logits after calibration, quantization and bias correction."""
        statistics = self.statistics(model)
        plan = make_plan(model, statistics, replace(ORT_X86_VNNI, per_channel=per_channel))
        correct_bias(model, plan, statistics)
        return self.run(render(model, plan))


def float_weights(bench: Bench, plan: QuantPlan) -> Array:
    """Integer activations, weights and biases as they were."""
    rendered = render(bench.model, plan)
    kept = {node.name: node for node in bench.model.graph}
    for node in rendered.graph:
        old = kept.get(node.name)
        if old is not None and node.op_type in {"Conv", "Gemm"}:
            for index in range(1, len(old.inputs)):
                replace_constant(rendered.graph, node, index, np.asarray(constant(old.inputs[index]), np.float32))
    return bench.run(rendered)


def integer_weights(bench: Bench, plan: QuantPlan, statistics: Statistics) -> Array:
    """Rounded weights with bias correction, float activations."""
    model = bench.model.clone()
    correct_bias(model, plan, statistics)
    nodes = {node.name: node for node in model.graph}
    for spec in plan.weights:
        readers = [nodes[name] for name in spec.nodes]
        rounded = quantized_weight(readers, spec, plan).real(spec.axis)
        for node in readers:
            replace_constant(model.graph, node, 1, rounded)
    return bench.run(model)


def gptq(bench: Bench, plan: QuantPlan) -> tuple[Array, float]:
    """Every weight rounded by GPTQ, biases corrected on the same rows; and the CPU seconds of the rounding."""
    model = bench.model.clone()
    nodes = {node.name: node for node in model.graph}
    chosen = [nodes[spec.nodes[0]] for spec in plan.weights]
    inputs = activations(bench, model, sorted({name_of(node.inputs[0]) for node in chosen}))
    begun = time.process_time()
    for spec, node in zip(plan.weights, chosen, strict=True):
        weight = np.asarray(constant(node.inputs[1]), np.float32)
        steps = quantized_weight([node], spec, plan).scale
        rounded, shift = round_node(node, weight, steps, inputs[name_of(node.inputs[0])])
        bias = constant(input_at(node, 2))
        old = np.zeros_like(shift) if bias is None else np.asarray(bias, np.float64)
        replace_constant(model.graph, node, 1, rounded)
        set_bias(model.graph, node, (old - shift).astype(np.float32))
    used = time.process_time() - begun
    return bench.run(render(model, plan)), used


def activations(bench: Bench, model: ir.Model, tensors: list[str]) -> dict[str, Array]:
    """The float inputs of some nodes on the first calibration rows."""
    import onnxruntime as ort

    probed = model.clone()
    values = {value.name: value for node in probed.graph for value in node.outputs}
    taken = [values[name] for name in tensors if name in values]
    probed.graph.outputs.extend(value for value in taken if not value.is_graph_output())
    session = ort.InferenceSession(str(save_graph(probed, bench.path)), providers=["CPUExecutionProvider"])
    feed = {"input": bench.calibration.images[:SAMPLED]}
    return {**feed, **dict(zip((v.name for v in taken), session.run([v.name for v in taken], feed), strict=True))}


def round_node(node: ir.Node, weight: F32, scale: F32, data: Array) -> tuple[F32, NDArray[np.float64]]:
    """Weights on the grid of `scale` and the mean shift that they give each output, group by group."""
    transposed = node.op_type == "Gemm" and not attr_int(node, "transB", 0)
    rows = weight.T if transposed else weight.reshape(len(weight), -1)
    group = attr_int(node, "group", 1)
    patches = data[None] if node.op_type == "Gemm" else unfolded(node, weight.shape[2:], data, group)
    rounded, shift = np.zeros_like(rows), np.zeros(len(rows))
    for number, part in enumerate(np.split(np.arange(len(rows)), group)):
        vectors = patches[number]
        step = np.broadcast_to(scale.reshape(-1, 1), (len(rows), 1))[part]
        found = gptq_blocks(rows[part], step, rows.shape[1], 8, vectors).astype(np.float32) - 128
        # the largest weight keeps its integer: the renderer finds the scale from it
        top = np.abs(rows[part]).argmax(axis=1)[:, None]
        np.put_along_axis(found, top, np.rint(np.take_along_axis(rows[part], top, 1) / step), 1)
        rounded[part] = np.clip(found, -127, 127) * step
        shift[part] = (rounded[part] - rows[part]).astype(np.float64) @ vectors.mean(axis=0)
    back = rounded.T if transposed else rounded.reshape(weight.shape)
    return np.ascontiguousarray(back), shift


def unfolded(node: ir.Node, kernel: tuple[int, ...], data: Array, group: int) -> list[F32]:
    """Sampled input patches of a 2-D Conv for each group, [n, C/g · kh · kw]."""
    pads, strides = attr_ints(node, "pads", (0, 0, 0, 0)), attr_ints(node, "strides", (1, 1))
    wide = np.pad(np.asarray(data, np.float32), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    views = np.lib.stride_tricks.sliding_window_view(wide, kernel, axis=(2, 3))[:, :, :: strides[0], :: strides[1]]
    count = views.shape[0] * views.shape[2] * views.shape[3]
    chosen = np.unravel_index(
        np.random.default_rng(0).choice(count, min(count, PATCHES), replace=False),
        (views.shape[0], views.shape[2], views.shape[3]),
    )
    patches = views[chosen[0], :, chosen[1], chosen[2]]
    return [part.reshape(len(part), -1) for part in np.split(patches, group, axis=1)]


def measure(name: str, source: Path, data: Path, folder: Path) -> None:
    """Print the lines of one network."""
    bench = Bench(source, data, folder)
    statistics = bench.statistics(bench.model)
    plan = make_plan(bench.model, statistics, ORT_X86_VNNI)
    rounded, seconds = gptq(bench, plan)
    found = {
        "`int8`": bench.int8(bench.model.clone()),
        "float weights, integer activations": float_weights(bench, plan),
        "integer weights, float activations": integer_weights(bench, plan, statistics),
        f"GPTQ rounding ({seconds:.1f} CPU s)": rounded,
    }
    even = bench.model.clone()
    count = len(equalize(even))
    found["one scale per weight tensor"] = bench.int8(bench.model.clone(), per_channel=False)
    found["one scale per weight tensor, equalized by weights"] = bench.int8(even.clone(), per_channel=False)
    found[f"equalized by weights ({count} pairs)"] = bench.int8(even)
    kept = bench.statistics(bench.model, channels=True)
    for method in ("minmax", "percentile"):
        magnitudes = {}
        for item in kept:
            if item.axis is not None:
                low, high = find_channel_ranges(item, RangeRule(method=method))
                magnitudes[item.tensor] = np.maximum(-low, high)
        even = bench.model.clone()
        equalize(even, magnitudes)
        found[f"equalized by activations ({method})"] = bench.int8(even)
    for text, logits in found.items():
        print(f"| {name} | {text} | {sqnr(bench.reference, logits):.2f} |", flush=True)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path(tempfile.gettempdir()) / "qpipe-depthwise.npz")
    options = parser.parse_args()
    data = require_data()
    print(f"{describe_machine()}\n\n| network | what | SQNR dB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        measure("ResNet-20", data / "resnet20-cifar10.onnx", data, folder)
        if options.weights.exists():
            with np.load(options.weights) as weights:
                build(weights, folder / "depthwise.onnx")
            measure("depthwise", folder / "depthwise.onnx", data, folder)
        else:
            print(f"| depthwise | not measured: no weights in {options.weights}, see depthwise.py | |")


if __name__ == "__main__":
    main()
