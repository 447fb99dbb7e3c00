"""Quality and speed of edge engines: digits, ResNet-20 and a depthwise net through LiteRT, tflite-micro and Vela.

    QPIPE_BENCH_DATA=/path/to/data python docs/benchmarks/edge.py [--rows 1000] [--micro-rows 200] [--pairs 60]

Prints Markdown tables. `drop` is float minus engine in points; SQNR is that of the outputs against the float model,
beside the ONNX Runtime INT8 engines of the same recipe. Rows `in float` are the steps of the loss attribution: nodes
that another target leaves in float, and outputs that a microcontroller writes as int8. Speed is a paired ratio of CPU
time on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from qpipe_litert.backend import LiteRtBackend
from qpipe_mcu.ethos import EthosBackend
from qpipe_mcu.tflm import TflmBackend

from qpipe.engines import read_engine, write_engine
from qpipe.models import read_model
from qpipe.plugins.backend import Backend, Session, Tensors
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.diagnosis.choices import spare
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.rendering.outputs import with_float_outputs
from qpipe.quant.schemes import LITERT, LITERT_INTEGER, LITERT_MICRO, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI
from qpipe.records.engine import Engine, Prepared
from qpipe.records.model import Model
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "plugins" / "qpipe-litert" / "tests"))
import edge_models as edge  # noqa: E402 - the nets of the plugins' tests

Floats = NDArray[np.float32]
LITERT_TARGET = Target(name="x86-litert", backend="litert")
CORTEX = Target(name="cortex-m-tflm", backend="tflm")
MEAN, STD = (np.array(v, np.float32)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model with its rows."""

    name: str
    model: Model
    calibration: Floats
    gate: Floats
    label: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One engine beside the float model."""

    rows: int
    float_accuracy: float
    accuracy: float
    sqnr_db: float
    size_bytes: int


def cases(folder: Path, rows: int) -> Iterator[Case]:
    """Digits and a depthwise net on digits; ResNet-20 where the data is."""
    digits = edge.digits()
    fitted = edge.fitted(edge.depthwise_net(), digits.calibration, digits.calibration_label, 1e-3)
    # The head was solved on the calibration rows, where its outputs are unlike those of any other row: calibrate apart.
    for name, proto, rows_of in (
        ("digits", edge.digits_net(), digits.calibration),
        ("depthwise", fitted, digits.search),
    ):
        path = folder / f"{name}.onnx"
        onnx.save(proto, path)
        model = read_model(path, name=name, origin=str(path))
        yield Case(name=name, model=model, calibration=rows_of, gate=digits.gate[:rows], label=digits.label[:rows])
    data = os.environ.get("QPIPE_BENCH_DATA")
    if data:
        model = read_model(Path(data) / "resnet20-cifar10.onnx", name="resnet20", origin="bench")
        calibration, gate = (np.load(Path(data) / f"cifar10-{role}.npz") for role in ("calibration", "gate"))
        yield Case(
            name="resnet20",
            model=model,
            calibration=cifar(calibration["image"][:256]),
            gate=cifar(gate["image"][:rows]),
            label=gate["label"][:rows],
        )


def cifar(image: NDArray[np.uint8]) -> Floats:
    """(image / 255 − mean) / std."""
    return ((image.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def prepared(case: Case, scheme: Scheme, recipe: str, folder: Path) -> Prepared:
    """The model after the recipe's stages for one scheme."""
    name = case.model.signature.inputs[0].name

    def batches() -> Iterator[Tensors]:
        yield from ({name: case.calibration[i : i + 64]} for i in range(0, len(case.calibration), 64))

    return prepare(case.model, builtin_recipe(recipe, scheme), scheme, batches, folder, None, Silent())


def built(backend: Backend, ready: Prepared, target: Target, workdir: Path) -> Engine:
    """An engine folder, without what the tools print."""
    workdir.mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()):
        made = backend.build(ready, target, workdir, Silent())
    about = {"model": "m", "model_digest": "0" * 64, "recipe": "r", "target": target.name, "backend": backend.name}
    write_engine(workdir, made, **about, signature=ready.signature)
    return read_engine(workdir)


def outputs(session: Session, case: Case, rows: int) -> Floats:
    """First output of the first rows."""
    taken, given = case.model.signature.inputs[0].name, case.model.signature.outputs[0].name
    parts = [session.run({taken: case.gate[i : i + 50]})[given] for i in range(0, rows, 50)]
    return np.concatenate(parts).astype(np.float32)


def row(case: Case, found: Floats, size_bytes: int) -> Row:
    """Compare with the float model on the same rows."""
    rows = len(found)
    wanted = edge.run_onnx(case.model.file.path, case.gate[:rows])[0]
    label = case.label[:rows]
    return Row(
        rows=rows,
        float_accuracy=float(np.mean(wanted.argmax(1) == label)),
        accuracy=float(np.mean(found.argmax(1) == label)),
        sqnr_db=edge.sqnr_db(wanted, found),
        size_bytes=size_bytes,
    )


def quality(case: Case, folder: Path, micro_rows: int) -> Iterator[tuple[str, Row]]:
    """Every engine of one model, with the steps that their losses are attributed to."""
    x86 = prepared(case, ORT_X86_VNNI, "int8", folder / ORT_X86_VNNI.name).deployable
    arm = prepared(case, ORT_ARM64, "int8", folder / ORT_ARM64.name).deployable
    for name, ort in (("ONNX Runtime INT8, x86", x86), ("ONNX Runtime INT8, arm64", arm)):
        yield name, row(case, edge.run_onnx(ort.path, case.gate)[0], ort.size_bytes)
    ready = prepared(case, LITERT, "int8", folder / "litert")
    yield "the LiteRT plan as Q/DQ", of_graph(case, ready.deployable.path)
    for names, path in in_float(case, ready, folder / "litert"):
        yield f"the same, {names} in float", of_graph(case, path)
    engine = built(LiteRtBackend(), ready, LITERT_TARGET, folder / "e-litert")
    session = LiteRtBackend().open(engine, LITERT_TARGET)
    yield "LiteRT INT8", row(case, outputs(session, case, len(case.gate)), engine.main_file.stat().st_size)
    whole = prepared(case, LITERT_INTEGER, "int8", folder / "litert-integer")
    yield "the plan of microcontrollers as Q/DQ", of_graph(case, whole.deployable.path)
    if (model := with_float_outputs(whole.deployable.path)) is not None:
        onnx.save(model, folder / "float-outputs.onnx")
        yield "the same, outputs in float", of_graph(case, folder / "float-outputs.onnx")
    micro = built(TflmBackend(), whole, CORTEX, folder / "e-tflm")
    found = outputs(TflmBackend().open(micro, CORTEX), case, min(micro_rows, len(case.gate)))
    arena = next(int(fact.value) for fact in micro.facts if fact.name == "arena_bytes")
    yield f"tflite-micro INT8 (arena {arena:,} bytes)", row(case, found, micro.main_file.stat().st_size)
    planned = edge.run_onnx(whole.deployable.path, case.gate[: len(found)])[0]
    yield "its plan as Q/DQ on the same rows", row(case, planned, whole.deployable.size_bytes)


def of_graph(case: Case, path: Path) -> Row:
    """What onnxruntime makes of a graph."""
    return row(case, edge.run_onnx(path, case.gate)[0], path.stat().st_size)


def in_float(case: Case, ready: Prepared, folder: Path) -> Iterator[tuple[str, Path]]:
    """The plan with fewer nodes quantized, as the loss attribution of a cell has it."""
    assert ready.plan is not None
    rows = {case.model.signature.inputs[0].name: case.gate[:16]}
    found = spare(open_graph(ready.graph.path), ready.plan, ORT_X86_AVX2, rows)
    if found is not None:
        yield ", ".join(found.nodes), save_graph(found.qdq, folder / "in-float.onnx")


def estimates(case: Case, folder: Path) -> Iterator[str]:
    """Vela's figures for the same model."""
    ready = prepared(case, LITERT_MICRO, "int8", folder / "vela")
    for name in ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256"):
        target = Target(name=name, backend="ethos-u", options={"accelerator": name})
        facts = {f.name: f.value for f in built(EthosBackend(), ready, target, folder / f"e-{name}").facts}
        kib = [facts[key] / 1024 for key in ("sram_bytes", "dram_bytes", "flash_bytes")]
        yield (
            f"| {case.name} | {name} | {facts['npu_cycles']:,.0f} | {facts['inference_ms']:.3f} "
            f"| {kib[0]:.1f} | {kib[1]:.1f} | {kib[2]:.1f} | {facts['npu_share']:.2f} |"
        )


def speed(folder: Path, pairs: int) -> tuple[float, float, float]:
    """Median paired ratio INT8 / float of CPU time on the 224×224 depthwise net, with a 90 % bootstrap interval."""
    path = folder / "depthwise224.onnx"
    onnx.save(edge.depthwise_net(224, 3, 32, (1, 2, 1, 2, 1, 2, 1, 1, 1, 2)), path)
    rows = np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32)
    model = read_model(path, name="depthwise224", origin=str(path))
    case = Case(name="depthwise224", model=model, calibration=rows, gate=rows, label=np.zeros(8, np.int64))
    sessions = []
    for recipe in ("int8", "none"):
        ready = prepared(case, LITERT, recipe, folder / f"p-{recipe}")
        engine = built(LiteRtBackend(), ready, LITERT_TARGET, folder / f"e-{recipe}")
        sessions.append(LiteRtBackend().open(engine, LITERT_TARGET))
    taken = [[], []]  # type: list[list[int]]
    for turn in range(pairs + 5):
        for lane in (0, 1) if turn % 2 else (1, 0):
            begin = time.thread_time_ns()
            sessions[lane].run({"image": rows[:1]})
            taken[lane].append(time.thread_time_ns() - begin)
    ratios = np.log(np.array(taken[0][5:]) / np.array(taken[1][5:]))
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.quantile(medians, (0.05, 0.95))
    return float(np.exp(np.median(ratios))), float(np.exp(low)), float(np.exp(high))


def header(*names: str) -> str:
    """First two lines of a Markdown table."""
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--micro-rows", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--quality-only", action="store_true", help="the first table alone")
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        print(header("model", "engine", "rows", "float", "engine", "drop, points", "SQNR, dB", "bytes"))
        kept = list(cases(folder, arguments.rows))
        for case in kept:
            for name, one in quality(case, folder / case.name, arguments.micro_rows):
                drop = 100 * (one.float_accuracy - one.accuracy)
                print(
                    f"| {case.name} | {name} | {one.rows} | {one.float_accuracy:.4f} | {one.accuracy:.4f} "
                    f"| {drop:+.2f} | {one.sqnr_db:.1f} | {one.size_bytes:,} |",
                    flush=True,
                )
        if arguments.quality_only:
            return
        print("\n" + header("model", "target", "cycles", "ms", "SRAM, KiB", "DRAM, KiB", "flash, KiB", "NPU share"))
        for case in kept:
            for line in estimates(case, folder / case.name):
                print(line, flush=True)
        ratio, low, high = speed(folder, arguments.pairs)
        print(
            f"\nLiteRT INT8 / float, depthwise 224×224, one thread, CPU time, {arguments.pairs} pairs: "
            f"{ratio:.3f} (90 %: {low:.3f} … {high:.3f})"
        )


if __name__ == "__main__":
    main()
