"""Weight-only codes on search rows: size of the file, and how far the outputs are from the float model's; an LSTM.

QPIPE_BENCH_DATA=/folder/of/models python docs/benchmarks/weight_only.py [--only minilm] [--codes 'int4 32 hqq' …]

Sizes are ratios to the float file; tables of embeddings are int8 rows in every line. Latency is measured of the LSTM
alone: one thread, both engines in turn, median of per-round ratios of thread CPU time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from machine import describe_machine, require_data
from quantization import DATA, Array, Feed, calibration, images, opened, ratios, sentences

from qpipe.quant.calibration.calibrate import calibrate
from qpipe.quant.calibration.observed import observed_tensors
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.rendering.dynamic import plan_dynamic, render_dynamic
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.quant.storage.codebook import plan_codebooks, render_codebooks
from qpipe.quant.storage.weight_only import plan_weight_only, render_weight_only

FILES = {"minilm": "minilm-l6-sts.onnx", "resnet20": "resnet20-cifar10.onnx"}
ROUNDINGS = ("nearest", "hqq", "gptq")
CODES = {
    "minilm": (
        *(f"int4 {size} {rounding}" for size in (32, 64) for rounding in ROUNDINGS),
        "nf4 32 nearest",
        "int8 32 nearest",
        *(f"kmeans {bits} 0" for bits in (4, 5, 6)),
    ),
    "resnet20": (*(f"kmeans {bits} 0" for bits in (4, 5, 6, 8)), "kmeans 4 1"),
}
"""`linear or NF4 code, block, rounding`, or `kmeans, bits, channels that share a codebook (0: all)`."""


@cache
def graph_of(name: str) -> ir.Model:
    """The float graph."""
    return open_graph(DATA / FILES[name])


@cache
def statistics_of(name: str) -> Statistics:
    """Vectors of the inputs from 256 calibration rows, which GPTQ reads."""
    model = graph_of(name)
    return calibrate(model, calibration(name, 256), observed_tensors(model.graph, ORT_X86_VNNI))


def coded(name: str, code: str) -> ir.Model:
    """The graph in one code."""
    model = graph_of(name)
    kind, first, second = code.split()
    if kind == "kmeans":
        plan = plan_codebooks(model, ORT_X86_VNNI, bits=int(first), channels=int(second))
        return render_codebooks(model, plan)
    bits, block = (8 if kind == "int8" else 4), int(first)
    plan = plan_weight_only(model, ORT_X86_VNNI, bits=bits, block_size=block, code="nf4" if kind == "nf4" else "linear")
    statistics = statistics_of(name) if second == "gptq" else None
    rounding = next(rounding for rounding in ROUNDINGS if rounding == second)
    return render_weight_only(model, plan, rounding=rounding, statistics=statistics)


def outputs(path: Path, feeds: list[Feed]) -> tuple[Array, float]:
    """(outputs, seconds of CPU to load)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    begun = time.process_time()
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    load_s = time.process_time() - begun
    return np.concatenate([session.run(None, feed)[0] for feed in feeds]), load_s


def measure(name: str, codes: tuple[str, ...], folder: Path) -> None:
    """Print one table."""
    feeds = list(sentences("stsb-search.npz", 40)) if name == "minilm" else [{"input": images("cifar10-search.npz")}]
    source = DATA / FILES[name]
    reference, load_s = outputs(source, feeds)
    print(f"\n### {name}, {len(reference)} search rows; the float file loads in {load_s:.2f} CPU s\n")
    print("| code | cosine | SQNR | size ratio | call, CPU s | load, CPU s |\n|---|---|---|---|---|---|")
    for code in codes:
        if code.endswith("gptq"):
            statistics_of(name)
        begun = time.process_time()
        path = save_graph(coded(name, code), folder / "coded.onnx")
        call_s = time.process_time() - begun
        found, load_s = outputs(path, feeds)
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
        cosine = 100 * float(((found * reference).sum(axis=1) / lengths).mean())
        sqnr = 10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum())
        size = path.stat().st_size / source.stat().st_size
        line = f"{code} | {cosine:.2f} % | {sqnr:.1f} dB | {size:.3f} | {call_s:.1f} | {load_s:.2f}"
        print(f"| {line} |", flush=True)


def recurrent(folder: Path, rounds: int = 60) -> None:
    """Print how an LSTM of random weights fares under `dynamic`: 128 inputs, 256 hidden, 40 steps, 2 rows."""
    random = np.random.default_rng(0)
    rows = {"x": random.standard_normal((40, 2, 128)).astype(np.float32)}
    print("\n### LSTM, `dynamic`\n\n| directions | SQNR | latency ratio | size ratio |\n|---|---|---|---|")
    for directions, kind in ((1, "forward"), (2, "bidirectional")):
        text = f'y, h, c = LSTM<hidden_size=256,direction="{kind}">(x, w, r, b)'
        head = '<ir_version: 8, opset_import: ["" : 17]> g (float[L,N,128] x) => (float[L,D,N,M] y)'
        model = onnx.parser.parse_model(f"{head} {{ {text} }}")
        for name, shape in (("w", (directions, 1024, 128)), ("r", (directions, 1024, 256)), ("b", (directions, 2048))):
            array = random.uniform(-1 / 16, 1 / 16, shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        onnx.save(model, folder / "lstm.onnx")
        graph = open_graph(folder / "lstm.onnx")
        save_graph(render_dynamic(graph, plan_dynamic(graph, ORT_X86_VNNI)), folder / "dynamic.onnx")
        paths = folder / "lstm.onnx", folder / "dynamic.onnx"
        reference, found = (outputs(path, [rows])[0] for path in paths)
        sqnr = 10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum())
        ratio = ratios([opened(path)[0] for path in paths], rows, rounds)[1]
        size = paths[1].stat().st_size / paths[0].stat().st_size
        print(f"| {directions} | {sqnr:.1f} dB | {ratio:.2f} | {size:.2f} |", flush=True)


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*FILES, "lstm"])
    parser.add_argument("--codes", nargs="+")
    options = parser.parse_args()
    require_data()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            if options.only in {None, name}:
                measure(name, tuple(options.codes or CODES[name]), Path(folder))
        if options.only in {None, "lstm"}:
            recurrent(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
