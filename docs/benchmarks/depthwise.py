"""A trained depthwise network, quantized by onnxruntime's `quantize_static` and by ours, side by side.

QPIPE_BENCH_DATA=/folder/of/rows python docs/benchmarks/depthwise.py [--weights W.npz] [--torch PYTHON] [--rounds 60]

The network of `depthwise_net.py` is trained on the CIFAR calibration and search rows by the interpreter that `--torch`
names (it needs torch and numpy; a few CPU minutes), and kept in `--weights` for the next time. Judged on the gate rows,
which neither training nor calibration has seen. Latency: one thread, all engines interleaved in one process,
median of per-round ratios of thread CPU time to the float model.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from depthwise_net import build, preprocessed
from machine import describe_machine, require_data
from quantization import Array, Feed, opened, outputs, ratios

CALIBRATED, WANTED_DB = 256, 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Preprocessed images and labels of one role."""

    images: Array
    labels: Array

    def batches(self, size: int = 64, stop: int | None = None) -> Iterator[Feed]:
        """Model inputs, `size` rows at a time."""
        for start in range(0, len(self.images[:stop]), size):
            yield {"input": self.images[:stop][start : start + size]}


def rows_of(data: Path, role: str) -> Rows:
    """The CIFAR rows of one role."""
    with np.load(data / f"cifar10-{role}.npz") as file:
        return Rows(images=preprocessed(file["image"]), labels=file["label"])


def onnxruntime_static(source: Path, target: Path, rows: Rows) -> None:
    """`quantize_static`, MinMax, U8S8, per channel."""
    from onnxruntime.quantization import QuantType, quantize_static

    class Reader:
        def __init__(self) -> None:
            self.left = rows.batches(stop=CALIBRATED)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(source, target, Reader(), per_channel=True, **types)


def onnxruntime_prepared(source: Path, target: Path, rows: Rows) -> None:
    """The same after `quant_pre_process`."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    onnxruntime_static(prepared, target, rows)


def ours(*, direct: bool) -> Callable[[Path, Path, Rows], None]:
    """The stages of the recipe `int8`; `direct` as on x86, where the first convolution of an image stays float."""

    def quantize(source: Path, target: Path, rows: Rows) -> None:
        from qpipe.quant.graph import save_graph
        from qpipe.quant.schemes import ORT_X86_VNNI
        from qpipe.quant.static import quantize_static

        def batches() -> Iterator[Feed]:
            return rows.batches(stop=CALIBRATED)

        scheme = ORT_X86_VNNI if direct else replace(ORT_X86_VNNI, direct_channels=0)
        save_graph(quantize_static(source, batches, scheme).qdq, target)

    return quantize


TOOLS: dict[str, Callable[[Path, Path, Rows], None]] = {
    "ort-static": onnxruntime_static,
    "ort-static, prepared": onnxruntime_prepared,
    "`int8`, every convolution": ours(direct=False),
    "`int8`": ours(direct=True),
}


def trained(weights: Path, torch: str) -> None:
    """Train where no weights lie yet."""
    if weights.exists():
        return
    if subprocess.run([torch, "-c", "import torch"], check=False, capture_output=True).returncode:
        sys.exit(
            f"{torch} has no torch: name an interpreter that has it with --torch, or trained weights with --weights"
        )
    script = Path(__file__).with_name("depthwise_net.py")
    subprocess.run([torch, str(script), str(weights)], check=True)


def sqnr(reference: Array, found: Array) -> float:
    """Signal to quantization noise of the logits, dB."""
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum()))


def compare(source: Path, data: Path, rounds: int, folder: Path) -> tuple[float, float]:
    """Print the table; how many dB ours, every convolution in integers, lies above onnxruntime's two."""
    calibration, gate, search = (rows_of(data, role) for role in ("calibration", "gate", "search"))
    floating, _ = opened(source)
    judged = list(gate.batches(128))
    reference = outputs(floating, judged)
    right = int((reference.argmax(axis=1) == gate.labels).sum())
    print(f"float: {right} of {len(gate.labels)} gate rows right ({100 * right / len(gate.labels):.2f} %)\n")
    sessions, kernels, found = [floating], {}, {}
    for number, (tool, quantize) in enumerate(TOOLS.items()):
        target = folder / f"{number}.onnx"
        quantize(source, target, calibration)
        session, kernels[tool] = opened(target, folder / "optimized.onnx")
        found[tool] = outputs(session, judged)
        sessions.append(session)
    feeds = [{"input": search.images[:size]} for size in (1, 8)]
    timed = [ratios(sessions, feed, rounds) for feed in feeds]
    print("| tool | SQNR dB | accuracy drop, points | latency ratio b1 / b8 | convolutions: integer / float |")
    print("|---|---|---|---|---|")
    for number, tool in enumerate(TOOLS, 1):
        drop = 100 * (right - int((found[tool].argmax(axis=1) == gate.labels).sum())) / len(gate.labels)
        count = kernels[tool]
        convs = f"{count['QLinearConv']} / {count['Conv'] + count['FusedConv']}"
        latency = f"{timed[0][number]:.3f} / {timed[1][number]:.3f}"
        print(f"| {tool} | {sqnr(reference, found[tool]):.1f} | {drop:+.2f} | {latency} | {convs} |", flush=True)
    plain, prepared, integer = (sqnr(reference, found[tool]) for tool in list(TOOLS)[:3])
    return integer - plain, integer - prepared


def main() -> int:
    """Parse the command line, train where needed, compare; 1 where the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path(tempfile.gettempdir()) / "qpipe-depthwise.npz")
    parser.add_argument("--torch", default=sys.executable, help="a Python interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    data = require_data()
    trained(options.weights, options.torch)
    logging.disable(logging.WARNING)
    print(describe_machine())
    with tempfile.TemporaryDirectory() as text:
        source = Path(text) / "depthwise.onnx"
        with np.load(options.weights) as weights:
            build(weights, source)
        gains = compare(source, data, options.rounds, Path(text))
    print(f"\nall convolutions integer, above `quantize_static`: {gains[0]:+.1f} dB, prepared: {gains[1]:+.1f} dB")
    return 0 if min(gains) >= WANTED_DB else 1


if __name__ == "__main__":
    sys.exit(main())
