"""Two depthwise networks, quantized by onnxruntime's `quantize_static` and by ours, side by side.

QPIPE_BENCH_DATA=/folder/of/rows python docs/benchmarks/depthwise.py [--weights W.npz] [--torch PYTHON] [--rounds 60]

The network of `depthwise_net.py` is trained on the CIFAR calibration and search rows by the interpreter that `--torch`
names (it needs torch and numpy; a few CPU minutes), and kept in `--weights` for the next time; without torch it is not
measured. Judged on the gate rows, which neither training nor calibration has seen. The 224×224 network of
`quantization.py` has random weights; it is judged on 64 enlarged search rows. Latency: one thread, all engines
interleaved in one process, median of per-round ratios of thread CPU time to the float model.
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
from machine import describe_machine, own_scheme, require_data
from quantization import Array, Feed, depthwise, images, opened, outputs, ratios

from qpipe.records.scheme import Scheme

CALIBRATED, CALIBRATED_LARGE, JUDGED_LARGE = 256, 64, 64
WANTED_DB, WANTED_FASTER = 6.0, 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Preprocessed images of one role."""

    images: Array

    def batches(self, size: int = 16) -> Iterator[Feed]:
        """Model inputs, `size` rows at a time."""
        for start in range(0, len(self.images), size):
            yield {"input": self.images[start : start + size]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A float model, the rows that it is calibrated and judged on, and those that are timed."""

    source: Path
    calibration: Rows
    judged: Rows
    timed: Array
    labels: Array | None = None
    """Of the judged rows; None where weights are random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one tool reached."""

    sqnr_db: float
    drop: str
    latency: tuple[float, float]
    """Ratio to the float model at batch sizes 1 and 8."""
    integer: int
    floating: int
    """Convolutions that run on integers, and in float."""


def onnxruntime_static(source: Path, target: Path, rows: Rows) -> None:
    """`quantize_static`, MinMax, U8S8, per channel."""
    from onnxruntime.quantization import QuantType, quantize_static

    class Reader:
        def __init__(self) -> None:
            self.left = rows.batches()

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


def ours(scheme: Scheme) -> Callable[[Path, Path, Rows], None]:
    """The stages of the recipe `int8`, and the engine's graph as the onnxruntime backend writes it for x86-64."""

    def quantize(source: Path, target: Path, rows: Rows) -> None:
        from qpipe_onnxruntime.lower.choices import choice_of
        from qpipe_onnxruntime.lower.passes import lower

        from qpipe.quant.graph import save_graph
        from qpipe.quant.static import quantize_static

        save_graph(quantize_static(source, rows.batches, scheme).qdq, target)
        lower(target, target, choice_of(scheme))

    return quantize


TOOLS: dict[str, Callable[[Path, Path, Rows], None]] = {
    "ort-static": onnxruntime_static,
    "ort-static, prepared": onnxruntime_prepared,
    "`int8`": ours(own_scheme()),
    "`int8`, first convolution on integers": ours(replace(own_scheme(), direct_channels=0)),
    "`int8`, first convolution in float": ours(replace(own_scheme(), packs_from=10**6, grid_below=0)),
}


def trained(weights: Path, torch: str) -> bool:
    """Train where no weights lie yet; whether there are weights now."""
    if weights.exists():
        return True
    if subprocess.run([torch, "-c", "import torch"], check=False, capture_output=True).returncode:
        return False
    script = Path(__file__).with_name("depthwise_net.py")
    subprocess.run([torch, str(script), str(weights)], check=True)
    return True


def cifar(data: Path, weights: Path, source: Path) -> Case:
    """The trained network; its graph is written to `source`."""
    with np.load(weights) as arrays:
        build(arrays, source)
    with np.load(data / "cifar10-gate.npz") as gate, np.load(data / "cifar10-calibration.npz") as calibration:
        return Case(
            source=source,
            calibration=Rows(images=preprocessed(calibration["image"][:CALIBRATED])),
            judged=Rows(images=preprocessed(gate["image"])),
            timed=images("cifar10-search.npz", 0, 8),
            labels=gate["label"],
        )


def large(source: Path) -> Case:
    """The 224×224 network with random weights; its graph is written to `source`."""
    depthwise(source)
    return Case(
        source=source,
        calibration=Rows(images=images("cifar10-calibration.npz", 0, CALIBRATED_LARGE, 7)),
        judged=Rows(images=images("cifar10-search.npz", 0, JUDGED_LARGE, 7)),
        timed=images("cifar10-search.npz", 0, 8, 7),
    )


def sqnr(reference: Array, found: Array) -> float:
    """Signal to quantization noise of the logits, dB."""
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum()))


def compare(case: Case, rounds: int, folder: Path) -> dict[str, Row]:
    """What every tool reaches."""
    floating, _ = opened(case.source)
    judged = list(case.judged.batches())
    reference = outputs(floating, judged)
    sessions, kernels, found = [floating], {}, {}
    for number, (tool, quantize) in enumerate(TOOLS.items()):
        target = folder / f"{number}.onnx"
        quantize(case.source, target, case.calibration)
        session, kernels[tool] = opened(target, folder / "optimized.onnx")
        found[tool] = outputs(session, judged)
        sessions.append(session)
    timed = [ratios(sessions, {"input": case.timed[:size]}, rounds) for size in (1, 8)]
    return {
        tool: Row(
            sqnr_db=sqnr(reference, found[tool]),
            drop=_drop(case.labels, reference, found[tool]),
            latency=(timed[0][number], timed[1][number]),
            integer=kernels[tool]["QLinearConv"],
            floating=kernels[tool]["Conv"] + kernels[tool]["FusedConv"],
        )
        for number, tool in enumerate(TOOLS, 1)
    }


def _drop(labels: Array | None, reference: Array, found: Array) -> str:
    if labels is None:
        return "–"
    float_right, right = (int((logits.argmax(axis=1) == labels).sum()) for logits in (reference, found))
    return f"{100 * (float_right - right) / len(labels):+.2f} of {100 * float_right / len(labels):.2f} %"


def judged(found: dict[str, Row], *, sqnr_counts: bool) -> bool:
    """Print the table and what is reached of the figures; whether all are."""
    print("| tool | SQNR dB | accuracy drop, points | latency ratio b1 / b8 | convolutions: integer / float |")
    print("|---|---|---|---|---|")
    for tool, row in found.items():
        latency = f"{row.latency[0]:.3f} / {row.latency[1]:.3f}"
        print(f"| {tool} | {row.sqnr_db:.1f} | {row.drop} | {latency} | {row.integer} / {row.floating} |")
    own = found["`int8`, first convolution on integers"]
    reached = [own.floating == 0]
    print(f"\n- every convolution on integers: {_said(reached[0])}")
    for peer in list(found)[:2]:
        gain = own.sqnr_db - found[peer].sqnr_db
        faster = [1 - mine / theirs for mine, theirs in zip(own.latency, found[peer].latency, strict=True)]
        reached.append(min(faster) >= WANTED_FASTER)
        text = f"latency lower by {100 * faster[0]:.0f} / {100 * faster[1]:.0f} % ({_said(reached[-1])})"
        if sqnr_counts:
            reached.append(gain >= WANTED_DB)
        print(f"- beside {peer}: {gain:+.1f} dB{f' ({_said(reached[-1])})' if sqnr_counts else ''}, {text}", flush=True)
    return all(reached)


def _said(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def main() -> int:
    """Parse the command line, train where needed, compare; 1 where a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path(tempfile.gettempdir()) / "qpipe-depthwise.npz")
    parser.add_argument("--torch", default=sys.executable, help="a Python interpreter that has torch")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    data = require_data()
    print(describe_machine())
    logging.disable(logging.WARNING)
    reached = True
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        print("\n### Trained, 32×32\n", flush=True)
        if trained(options.weights, options.torch):
            reached = judged(
                compare(cifar(data, options.weights, folder / "small.onnx"), options.rounds, folder), sqnr_counts=True
            )
        else:
            print(
                f"not measured: torch is not installed ({options.torch}); name an interpreter that has it with --torch"
            )
        print("\n### Random weights, 224×224\n", flush=True)
        found = compare(large(folder / "large.onnx"), max(options.rounds // 4, 5), folder)
        reached = judged(found, sqnr_counts=False) and reached
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
