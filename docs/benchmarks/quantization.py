"""Our quantizer beside onnxruntime's own tools: quality, latency, CPU time and memory of the call.

QPIPE_BENCH_DATA=/folder/of/models python docs/benchmarks/quantization.py [--rounds 200] > table.md

The folder holds resnet20-cifar10.onnx, minilm-l6-sts.onnx and their .npz rows (they are not part of this repository).
The depthwise network (MobileNetV2's layout, 224×224, random weights, Pad before each 3×3 Conv, Clip after) is made.
Latency: one thread, all engines in one process in random order, median of per-round ratios of thread CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from machine import own_scheme
from numpy.typing import NDArray

from qpipe.execute.children.group import peak_resident_bytes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = NDArray[np.generic]
Feed = dict[str, Array]

DATA = Path(os.environ.get("QPIPE_BENCH_DATA", ""))
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
ROWS = {"resnet20": 256, "minilm": 256, "depthwise": 64}


@lru_cache(maxsize=2)
def loaded(name: str) -> Array:
    """All images of one file, decoded once."""
    return np.asarray(np.load(DATA / name)["image"])


def images(name: str, start: int = 0, stop: int | None = None, repeat: int = 1) -> Array:
    """CIFAR rows, preprocessed; `repeat` enlarges them by repeating pixels."""
    raw = loaded(name)[start:stop]
    large = np.repeat(np.repeat(raw, repeat, 2), repeat, 3)
    return ((large.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def sentences(name: str, size: int, rows: int | None = None) -> Iterator[Feed]:
    """Token batches, each cut to its longest row."""
    data = np.load(DATA / name)
    ids, mask = data["input_ids"][:rows], data["attention_mask"][:rows]
    for start in range(0, len(ids), size):
        part = mask[start : start + size]
        longest = int(part.sum(axis=1).max())
        yield {
            "input_ids": ids[start : start + size, :longest].astype(np.int64),
            "attention_mask": part[:, :longest].astype(np.int64),
        }


def calibration(name: str, rows: int) -> Iterator[Feed]:
    """Batches of the calibration rows of one model."""
    if name == "minilm":
        yield from sentences("stsb-calibration.npz", 32, rows)
        return
    size, repeat = (64, 1) if name == "resnet20" else (16, 7)
    for start in range(0, rows, size):
        part = [
            images("cifar10-calibration.npz", (start + i) % 1024, (start + i) % 1024 + 1, repeat) for i in range(size)
        ]
        yield {"input": np.concatenate(part)}


Blocks = tuple[tuple[int, int, int, int], ...]
"""(expansion, width, count, first stride) of inverted residuals. Source: Sandler et al. 2018, arXiv:1801.04381."""
MOBILENET_V2: Blocks = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""52 convolutions with the stem and the last one."""
SHORT: Blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 1, 1), (6, 160, 1, 2))
"""27 convolutions with the stem, and no last one."""


def depthwise(path: Path, seed: int = 0, *, blocks: Blocks = MOBILENET_V2, last: int | None = 1280) -> None:
    """MobileNetV2's kind of layout with random weights, Pad before and Clip after its depthwise convolutions."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    nodes, constants = [], []

    def constant(name: str, array: object) -> str:
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    for name, array in (("lo", np.float32(0)), ("hi", np.float32(6)), ("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))):
        constant(name, array)

    def conv(x: str, width: int, out: int, *, kernel: int, stride: int, group: int, clip: bool) -> str:
        name = f"conv{len(nodes)}"
        if kernel == 3:
            nodes.append(helper.make_node("Pad", [x, "pads"], [f"{name}_pad"], name=f"{name}/Pad"))
            x = f"{name}_pad"
        shape = (out, width // group, kernel, kernel)
        spread = np.exp(rng.standard_normal((out, 1, 1, 1)) * (0.5 if group == 1 else 0.9))
        weight = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) * spread
        inputs = [x, constant(f"{name}.w", weight.astype(np.float32))]
        inputs.append(constant(f"{name}.b", (rng.standard_normal(out) * 0.3).astype(np.float32)))
        options = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "group": group}
        nodes.append(helper.make_node("Conv", inputs, [f"{name}_out"], name=f"{name}/Conv", **options))
        if clip:
            nodes.append(helper.make_node("Clip", [f"{name}_out", "lo", "hi"], [f"{name}_act"], name=f"{name}/Clip"))
        return f"{name}_act" if clip else f"{name}_out"

    x, width = conv("input", 3, 32, kernel=3, stride=2, group=1, clip=True), 32
    for factor, out, count, first in blocks:
        for number in range(count):
            stride, y = (first if number == 0 else 1), x
            if factor != 1:
                y = conv(y, width, width * factor, kernel=1, stride=1, group=1, clip=True)
            y = conv(y, width * factor, width * factor, kernel=3, stride=stride, group=width * factor, clip=True)
            y = conv(y, width * factor, out, kernel=1, stride=1, group=1, clip=False)
            if stride == 1 and width == out:
                nodes.append(helper.make_node("Add", [x, y], [f"add{len(nodes)}"], name=f"add{len(nodes)}"))
                y = nodes[-1].output[0]
            x, width = y, out
    if last is not None:
        x, width = conv(x, width, last, kernel=1, stride=1, group=1, clip=True), last
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pool"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"], name="flat"))
    weight = constant("head.w", (rng.standard_normal((1000, width)) * 0.03).astype(np.float32))
    nodes.append(helper.make_node("Gemm", ["flat", weight], ["logits"], name="head", transB=1))
    borders = [
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])],
    ]
    graph = helper.make_graph(nodes, "depthwise", *borders, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def call(tool: str, name: str, source: str, target: str, rows: int) -> None:
    """One quantize call, measured: run in a process of its own."""
    feed = list(calibration(name, rows)) if rows <= 256 and name != "depthwise" else None

    def batches() -> Iterator[Feed]:
        return iter(feed) if feed is not None else calibration(name, rows)

    if tool.startswith("ours"):
        import onnxruntime  # noqa: F401 - imports are not part of the call
        from qpipe_onnxruntime.lower.choices import choice_of
        from qpipe_onnxruntime.lower.passes import lower

        from qpipe.quant.graph import open_graph, save_graph
        from qpipe.quant.options import QuantOptions
        from qpipe.quant.rendering.dynamic import plan_dynamic, render_dynamic
        from qpipe.quant.static import quantize_static as ours

        own = own_scheme()
        begun, wall = time.process_time(), time.perf_counter()
        if tool == "ours-dynamic":
            model = open_graph(Path(source))
            save_graph(render_dynamic(model, plan_dynamic(model, own)), Path(target))
        else:
            variant = tool.removeprefix("ours").removeprefix("-")
            schemes = {
                "float": replace(own, grid_below=0),
                "all": replace(own, grid_below=0, direct_channels=0),
            }
            scheme = schemes.get(variant, own)
            options = QuantOptions(ranges=variant if variant and variant not in schemes else "mse")
            save_graph(ours(Path(source), batches, scheme, options).qdq, Path(target))
        lower(Path(target), Path(target), choice_of(own))  # what is timed and judged is the engine
    else:
        import logging

        from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        logging.disable(logging.WARNING)

        class Reader:
            def __init__(self) -> None:
                self.batches = batches()

            def get_next(self) -> Feed | None:
                return next(self.batches, None)

        prepared = source
        if tool == "ort-static-prepared":
            prepared = f"{target}.prepared"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
        begun, wall = time.process_time(), time.perf_counter()
        if tool == "ort-dynamic":
            quantize_dynamic(prepared, target, per_channel=True, weight_type=QuantType.QInt8)
        else:
            types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
            quantize_static(prepared, target, Reader(), per_channel=True, **types)
    used = time.process_time() - begun, time.perf_counter() - wall
    print(json.dumps({"cpu_s": used[0], "wall_s": used[1], "rss_mb": peak_resident_bytes(os.getpid()) / 2**20}))


def called(tool: str, name: str, source: Path, target: Path, rows: int) -> dict[str, float]:
    """`call` in a child process; its figures."""
    command = [sys.executable, "-W", "ignore", __file__, "--call", tool, name, str(source), str(target), str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def opened(path: Path, optimized: Path | None = None) -> tuple[InferenceSession, Counter[str]]:
    """A session on one thread, and the operators that it runs."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = 3, 1, 1
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kernels = Counter(node.op_type for node in onnx.load(optimized).graph.node) if optimized is not None else Counter()
    return session, kernels


def outputs(session: InferenceSession, batches: list[Feed]) -> Array:
    """First outputs of all batches."""
    return np.concatenate([session.run(None, feed)[0] for feed in batches])


def ratios(sessions: list[InferenceSession], feed: Feed, rounds: int) -> list[float]:
    """Median of per-round latency ratios to the first session; in random order, since neighbours leave warm caches."""
    for session in sessions:
        for _ in range(3):
            session.run(None, feed)
    taken, random = np.zeros((rounds, len(sessions))), np.random.default_rng(0)
    for number in range(rounds):
        for which in random.permutation(len(sessions)):
            begun = time.thread_time()
            sessions[which].run(None, feed)
            taken[number, which] = time.thread_time() - begun
    return [float(np.median(taken[:, which] / taken[:, 0])) for which in range(len(sessions))]


def spearman(embeddings: Array, data: Mapping[str, Array]) -> float:
    """100 × Spearman of the cosines of each pair with its score."""
    from scipy.stats import spearmanr

    order = np.argsort(data["pair"], kind="stable")
    first, second = embeddings[order[0::2]], embeddings[order[1::2]]
    cosines = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return 100 * spearmanr(cosines, data["score"][order[0::2]]).statistic


def quality(name: str, session: InferenceSession, reference: Array, batches: list[Feed]) -> str:
    """Figures of merit of one engine, as text."""
    found = outputs(session, batches)
    sqnr = 10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum())
    if name == "depthwise":
        return f"{sqnr:.1f} dB"
    if name == "minilm":
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
        cosine = 100 * float(((found * reference).sum(axis=1) / norms).mean())
        data = np.load(DATA / "stsb-gate.npz")
        return f"cosine {cosine:.2f} %, drop {spearman(reference, data) - spearman(found, data):+.2f}"
    data = np.load(DATA / "cifar10-gate.npz")
    drops = []
    for source in ("original", "jpeg"):
        rows = data["source"] == source
        right = [(logits[rows].argmax(axis=1) == data["label"][rows]).sum() for logits in (reference, found)]
        drops.append(f"{source} {right[0] - right[1]:+d} of {rows.sum()}")
    return f"{sqnr:.1f} dB, net losses {', '.join(drops)}"


CASES = {
    "resnet20": (("ort-static", "ort-static-prepared", "ours", "ours-float", "ours-all"), "resnet20-cifar10.onnx"),
    "minilm": (("ort-static", "ort-dynamic", "ours", "ours-dynamic"), "minilm-l6-sts.onnx"),
    "depthwise": (("ort-static", "ort-static-prepared", "ours"), None),
}


def rows_to_judge(name: str) -> list[Feed]:
    """Batches on which engines are compared."""
    if name == "resnet20":
        return [{"input": images("cifar10-gate.npz", start, start + 128)} for start in range(0, 4846, 128)]
    if name == "minilm":
        return list(sentences("stsb-gate.npz", 40))
    return [{"input": images("cifar10-search.npz", start, start + 8, 7)} for start in range(0, 64, 8)]


def feed_of(name: str, batch: int) -> Feed:
    """One batch of that size for timing."""
    if name == "minilm":
        ids = np.random.default_rng(0).integers(1000, 20000, (batch, 16 if batch == 1 else 24))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {"input": images("cifar10-search.npz", 0, batch, 1 if name == "resnet20" else 7)}


def measure(name: str, rounds: int, folder: Path) -> None:
    """Print one table."""
    tools, file = CASES[name]
    source = folder / "depthwise.onnx" if file is None else DATA / file
    if file is None:
        depthwise(source)
    print(f"\n### {name}, {ROWS[name]} calibration rows\n")
    print("| tool | quality | latency ratio b1 / b8 | call: CPU s / wall s / peak RSS MB | size ratio | kernels |")
    print("|---|---|---|---|---|---|")
    figures = {tool: called(tool, name, source, folder / f"{name}-{tool}.onnx", ROWS[name]) for tool in tools}
    sessions = {tool: opened(folder / f"{name}-{tool}.onnx", folder / "optimized.onnx") for tool in tools}
    floating, _ = opened(source)
    judged = rows_to_judge(name)
    reference = outputs(floating, judged)
    timed = [floating, *(session for session, _ in sessions.values())]
    both = [
        ratios(
            timed, feed_of(name, batch), max(rounds // (1 if batch == 1 else 4) // (1 if name == "resnet20" else 4), 5)
        )
        for batch in (1, 8)
    ]
    for number, (tool, (session, kernels)) in enumerate(sessions.items(), 1):
        spent = figures[tool]
        size = (folder / f"{name}-{tool}.onnx").stat().st_size / Path(source).stat().st_size
        integer = ("QLinear", "QGemm", "MatMulInteger", "DynamicQuantizeMatMul", "Conv", "MatMul", "FusedConv")
        ran = ", ".join(f"{op} {count}" for op, count in kernels.most_common() if op.startswith(integer))
        call_text = f"{spent['cpu_s']:.2f} / {spent['wall_s']:.2f} / {spent['rss_mb']:.0f}"
        judged_text = quality(name, session, reference, judged)
        latency = f"{both[0][number]:.3f} / {both[1][number]:.3f}"
        print(f"| {tool} | {judged_text} | {latency} | {call_text} | {size:.2f} | {ran} |", flush=True)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--call", nargs=5)
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("set QPIPE_BENCH_DATA to the folder of models and rows")
    if options.call:
        tool, name, source, target, rows = options.call
        call(tool, name, source, target, int(rows))
        return
    import onnxruntime

    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    isa = ", ".join(flag for flag in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if flag in flags)
    print(f"onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}, {platform.machine()}: {isa}")
    with tempfile.TemporaryDirectory() as text:
        for name in CASES:
            if options.only in {None, name}:
                measure(name, options.rounds, Path(text))


if __name__ == "__main__":
    main()
