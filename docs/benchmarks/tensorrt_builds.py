"""TensorRT for RTX: our Q/DQ graphs, onnxruntime's and modelopt's through one builder; the cost of building with qpipe.

Run: `python docs/benchmarks/tensorrt_builds.py [compare|cost|turns|bytes]` from the repository; prints Markdown tables.
Real models and data come from the folder in QPIPE_BENCH_DATA; without it only the random-weight networks are shown.
nvidia-modelopt runs in an environment of its own: `--modelopt-python /path/to/its/bin/python`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
from numpy.typing import NDArray
from qpipe_tensorrt.backend import TensorRT

from qpipe.errors import BuildError
from qpipe.models import read_model
from qpipe.plugins.backend import Tensors
from qpipe.prepare import builtin_recipe, prepare
from qpipe.records.engine import Built, Prepared
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

ROOT = Path(__file__).resolve().parents[2]
CAPABILITIES = ("8.6", "8.9", "12.0")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A float model with calibration batches and, where there is data, rows to measure its Q/DQ graph on."""

    name: str
    path: Path
    batches: Callable[[], Iterator[Tensors]]
    rows: Tensors
    labels: NDArray[np.int64] | None = None


def nets() -> ModuleType:
    """The networks of the plugin's tests."""
    path = ROOT / "plugins/qpipe-tensorrt/tests/nets.py"
    spec = importlib.util.spec_from_file_location("nets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nets"] = module
    spec.loader.exec_module(module)
    return module


def random_batches(shape: tuple[int, ...], count: int = 2, size: int = 8) -> Iterator[Tensors]:
    """Normal noise for networks with random weights."""
    for seed in range(count):
        yield {"input": np.random.default_rng(seed).normal(size=(size, *shape)).astype(np.float32)}


def subjects(folder: Path) -> list[Subject]:
    """Networks with random weights, and real models where their data is."""
    made = []
    for name, shape in (("small", (3, 16, 16)), ("depthwise", (3, 16, 16)), ("transformer", (5, 64))):
        made.append(_random(folder, name, shape))
    data = os.environ.get("QPIPE_BENCH_DATA")
    if data:
        made += [_resnet20(Path(data)), _minilm(Path(data))]
    else:
        made.append(_random(folder, "resnet20", (3, 32, 32)))
    made.append(_random(folder, "resnet50", (3, 224, 224)))
    return made


def _random(folder: Path, name: str, shape: tuple[int, ...]) -> Subject:
    path = folder / f"{name}.onnx"
    onnx.save(getattr(nets(), name)("float"), path)
    rows = next(random_batches(shape, 1, 4))
    return Subject(name=f"{name} (random weights)", path=path, batches=partial(random_batches, shape), rows=rows)


def _resnet20(data: Path) -> Subject:
    def images(name: str, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        with np.load(data / name) as file:
            raw, labels = file["image"][:count], file["label"][:count]
        scaled = (raw / 255 - MEAN[:, None, None]) / STD[:, None, None]
        return scaled.astype(np.float32), labels.astype(np.int64)

    def batches() -> Iterator[Tensors]:
        calibration, _ = images("cifar10-calibration.npz", 256)
        for start in range(0, 256, 64):
            yield {"input": calibration[start : start + 64]}

    rows, labels = images("cifar10-gate.npz", 4846)
    path = data / "resnet20-cifar10.onnx"
    return Subject(name="ResNet-20, CIFAR-10", path=path, batches=batches, rows={"input": rows}, labels=labels)


def _minilm(data: Path) -> Subject:
    def rows_of(name: str, count: int) -> Tensors:
        with np.load(data / name) as file:
            ids, mask = file["input_ids"][:count], file["attention_mask"][:count]
        longest = int(mask.sum(axis=1).max())
        return {"input_ids": ids[:, :longest].astype(np.int64), "attention_mask": mask[:, :longest].astype(np.int64)}

    def batches() -> Iterator[Tensors]:
        all_rows = rows_of("stsb-calibration.npz", 128)
        for start in range(0, 128, 32):
            yield {name: values[start : start + 32] for name, values in all_rows.items()}

    path = data / "minilm-l6-sts.onnx"
    return Subject(name="MiniLM-L6, STS-B", path=path, batches=batches, rows=rows_of("stsb-gate.npz", 64))


def ours(subject: Subject, target: Target, folder: Path) -> Prepared:
    """The recipe `int8` by TensorRT's scheme."""
    folder.mkdir()
    model = read_model(subject.path, name="model", origin="benchmark")
    scheme = TensorRT().scheme(target)
    recipe = builtin_recipe("int8", scheme)
    return prepare(model, recipe, scheme, subject.batches, folder, None, Silent())


def theirs(subject: Subject, base: Prepared, folder: Path, **extra: bool) -> Prepared:
    """onnxruntime.quantization's QDQ; symmetric int8 with what `extra` says."""
    from dataclasses import replace

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    from qpipe.prepare.onnxfile import describe

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self) -> None:
            self.source = iter(subject.batches())

        def get_next(self) -> dict[str, NDArray[np.generic]] | None:
            batch = next(self.source, None)
            return None if batch is None else dict(batch)

    folder.mkdir()
    made = folder / "model.onnx"
    options = {"ActivationSymmetric": True, **extra} if extra else {}
    kind = QuantType.QInt8 if extra else QuantType.QUInt8
    quantize_static(
        subject.path,
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=kind,
        weight_type=QuantType.QInt8,
        extra_options=options,
    )
    return replace(base, qdq=describe(made), plan=None)


BY_MODELOPT = """
import json, sys
import numpy as np
from modelopt.onnx.quantization import quantize
source, rows, made, method = json.loads(sys.argv[1])
with np.load(rows) as file:
    data = {name: file[name] for name in file.files}
quantize(source, quantize_mode="int8", calibration_data=data, calibration_method=method, calibration_eps=["cpu"],
         high_precision_dtype="fp32", output_path=made)
"""


def modelopts(subject: Subject, base: Prepared, folder: Path, python: str, method: str) -> Prepared | str:
    """nvidia-modelopt's QDQ by its own interpreter, in float32 around the pairs; or why there is none."""
    from dataclasses import replace

    from qpipe.prepare.onnxfile import describe

    folder.mkdir()
    batches = list(subject.batches())
    rows, made = folder / "rows.npz", folder / "model.onnx"
    np.savez(rows, **{name: np.concatenate([one[name] for one in batches]) for name in batches[0]})
    request = json.dumps([str(subject.path), str(rows), str(made), method])
    done = subprocess.run([python, "-c", BY_MODELOPT, request], cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return replace(base, qdq=describe(made), plan=None)


def target_of(capability: str, builds: int = 1, *, reproducible: bool = True) -> Target:
    """A TensorRT for RTX target."""
    options = {
        "product": "tensorrt-rtx",
        "compute_capability": capability,
        "builds": builds,
        "reproducible": reproducible,
    }
    return Target(name="rtx", backend="tensorrt", options=options)


def build(prepared: Prepared, capability: str, builds: int = 1, *, reproducible: bool = True) -> Built:
    """One engine in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "engine"
        workdir.mkdir()
        return TensorRT().build(prepared, target_of(capability, builds, reproducible=reproducible), workdir, Silent())


def quality(path: Path, subject: Subject) -> str:
    """The Q/DQ graph on the CPU without graph optimization: accuracy, or the SQNR against the float model."""
    found, expected = _run(path, subject.rows), _run(subject.path, subject.rows)
    noise = ((found - expected) ** 2).sum()
    sqnr_db = 10 * np.log10((expected**2).sum() / noise) if noise else np.inf
    if subject.labels is None:
        return f"{sqnr_db:.1f} dB"
    accuracy, base = ((y.argmax(axis=1) == subject.labels).mean() * 100 for y in (found, expected))
    return f"{sqnr_db:.1f} dB; {accuracy:.2f} % (float {base:.2f} %)"


def _run(path: Path, rows: Tensors) -> NDArray[np.float64]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    count = len(next(iter(rows.values())))
    parts = [
        session.run(None, {name: values[start : start + 64] for name, values in rows.items()})[0]
        for start in range(0, count, 64)
    ]
    return np.concatenate(parts).astype(np.float64)


def compare(modelopt: str | None) -> None:
    """Our graph, onnxruntime's and modelopt's through the same builder."""
    print(
        "| model | graph | capability | int8 / float products | layers | roundings | kernels rounding twice |", end=""
    )
    print(" reformats | Q/DQ graph on CPU |\n|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, subject in enumerate(subjects(Path(folder))):
            base = ours(subject, target_of("8.9"), Path(folder) / f"ours{number}")
            for capability in CAPABILITIES:
                _row(subject, "ours", base, capability)
            where = Path(folder)
            default = theirs(subject, base, where / f"default{number}")
            _row(subject, "onnxruntime, default", default, "8.9")
            biased = theirs(subject, base, where / f"symmetric{number}", WeightSymmetric=True)
            _row(subject, "onnxruntime, symmetric int8", biased, "8.9")
            best = theirs(subject, base, where / f"nobias{number}", QuantizeBias=False)
            _row(subject, "onnxruntime, symmetric, `QuantizeBias=False`", best, "8.9")
            for method in ("max", "entropy"):
                _modelopt_row(subject, base, where / f"{method}{number}", modelopt, method)


def _modelopt_row(subject: Subject, base: Prepared, folder: Path, python: str | None, method: str) -> None:
    name = f"modelopt, {method}"
    if python is None:
        told = "not measured: no `--modelopt-python`"
    else:
        prepared = modelopts(subject, base, folder, python, method)
        if isinstance(prepared, Prepared):
            _row(subject, name, prepared, "8.9")
            return
        told = f"modelopt refused: {prepared}"
    print(f"| {subject.name} | {name} | 8.9 | {told} | | | | | |", flush=True)


def _row(subject: Subject, name: str, prepared: Prepared, capability: str) -> None:
    try:
        built = build(prepared, capability)
    except BuildError as error:
        print(f"| {subject.name} | {name} | {capability} | refused: {error.message} | | | | | |", flush=True)
        return
    facts = {fact.name: fact.value for fact in built.facts}
    assert built.placement is not None
    cells = [
        f"{built.placement.integer} / {built.placement.float}",
        *(
            f"{facts[key]:.0f}"
            for key in ("engine_layers", "engine_roundings", "kernels_rounding_twice", "engine_reformats")
        ),
        quality(prepared.deployable.path, subject) if capability == "8.9" else "",
    ]
    print(f"| {subject.name} | {name} | {capability} | " + " | ".join(cells) + " |", flush=True)
    for node in built.placement.left_in_float:
        print(f"<!-- float: {node.name} {node.op}: {node.reason} -->", flush=True)


BY_HAND = """
import json, sys, time
import tensorrt_rtx as trt
path, made, spans = json.loads(sys.argv[1])
began = time.process_time()
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file(path)
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
profile = builder.create_optimization_profile()
for name, low, best, high in spans:
    profile.set_shape(name, low, best, high)
config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
seconds = time.process_time() - began
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
with open(made, "wb") as file:
    file.write(memoryview(plan))
print(json.dumps([seconds, peak * 1024, plan.nbytes]))
"""


def by_hand(prepared: Prepared, made: Path, *before: str) -> list[float]:
    """CPU seconds, peak resident bytes and engine bytes of a bare script; `before` goes before its interpreter."""
    spans = [(span.name, span.low, span.best, span.high) for span in prepared.shapes]
    request = json.dumps([str(prepared.deployable.path), str(made), spans])
    command = [*before, sys.executable, "-c", BY_HAND, request]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(number) for number in json.loads(done.stdout.splitlines()[-1])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one build took."""

    process_s: float
    """CPU of the builder's process, its start included."""
    building_s: float
    """CPU of parsing and building in it."""
    wall_s: float
    """Wall time of the same."""
    peak_bytes: float
    asking_s: float = 0.0
    """CPU of the process that asked for it."""


def _children_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def spent_by_hand(prepared: Prepared) -> Spent:
    """A bare script that calls the builder."""
    before = _children_s()
    with tempfile.TemporaryDirectory() as folder:
        building_s, peak_bytes, _ = by_hand(prepared, Path(folder) / "engine")
    return Spent(process_s=_children_s() - before, building_s=building_s, wall_s=math.nan, peak_bytes=peak_bytes)


def spent_by_qpipe(prepared: Prepared, *, reproducible: bool = True) -> Spent:
    """The same through the plugin."""
    before, own = _children_s(), time.process_time()
    facts = {fact.name: fact.value for fact in build(prepared, "8.9", reproducible=reproducible).facts}
    return Spent(
        process_s=_children_s() - before,
        building_s=facts["build_cpu_s"],
        wall_s=facts["build_s"],
        peak_bytes=facts["build_peak_rss_bytes"],
        asking_s=time.process_time() - own,
    )


def _pairs(
    first: Callable[[], Spent], second: Callable[[], Spent], pairs: int
) -> tuple[tuple[Spent, ...], tuple[Spent, ...]]:
    """Alternating, and every other pair the other way round."""
    found: list[tuple[Spent, Spent]] = []
    for turn in range(pairs):
        if turn % 2:
            late = second()
            found.append((first(), late))
        else:
            found.append((first(), second()))
    return tuple(one for one, _ in found), tuple(one for _, one in found)


def _ratio(ours: Sequence[Spent], others: Sequence[Spent], name: str, unit: str = "s", scale: float = 1.0) -> str:
    """Median and range of the paired ratios, and both medians."""
    above, below = ([getattr(one, name) / scale for one in many] for many in (ours, others))
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    ends = f"{ratios[0]:.2f}–{ratios[-1]:.2f}"
    medians = f"{statistics.median(above):.2f} {unit} and {statistics.median(below):.2f} {unit}"
    return f"{statistics.median(ratios):.2f} ({ends}; {medians})"


def _costly(folder: Path) -> Iterator[tuple[str, Prepared]]:
    for name, shape in (("resnet20", (3, 32, 32)), ("resnet50", (3, 224, 224))):
        yield name, ours(_random(folder, name, shape), target_of("8.9"), folder / f"stages-{name}")


def cost(pairs: int = 9) -> None:
    """CPU time and peak memory of the builder: called by hand in a bare script, and through the plugin."""
    print(
        "| model | `reproducible` | pairs | CPU of the whole process, qpipe / by hand | CPU of parsing and building |",
        end="",
    )
    print(" peak RSS | CPU of the process that asks |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, prepared in _costly(Path(folder)):
            for wanted in (False, True):
                through, hand = _pairs(
                    partial(spent_by_qpipe, prepared, reproducible=wanted), partial(spent_by_hand, prepared), pairs
                )
                cells = [_ratio(through, hand, key) for key in ("process_s", "building_s")]
                memory = _ratio(through, hand, "peak_bytes", "MiB", 2**20)
                asking = f"{statistics.median(one.asking_s for one in through):.2f} s"
                told = f"| {name} | {str(wanted).lower()} | {pairs} | {' | '.join(cells)} | {memory} | {asking} |"
                print(told, flush=True)


def turns(pairs: int = 9) -> None:
    """What `reproducible` costs: one CPU and a first-in-first-out schedule against the ordinary one."""
    print("| model | pairs | CPU of parsing and building, on / off | wall | peak RSS |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, prepared in _costly(Path(folder)):
            given, ordinary = _pairs(
                partial(spent_by_qpipe, prepared), partial(spent_by_qpipe, prepared, reproducible=False), pairs
            )
            cells = [_ratio(given, ordinary, key) for key in ("building_s", "wall_s")]
            memory = _ratio(given, ordinary, "peak_bytes", "MiB", 2**20)
            print(f"| {name} | {pairs} | {' | '.join(cells)} | {memory} |", flush=True)


def same_bytes() -> None:
    """Three builds of one model: with qpipe, without its schedule, and by hand; the memory layout is fixed in all."""
    print(
        "| model | capability | how | distinct files of 3 | bytes that differ | distinct choices of tactics |", end=""
    )
    print("\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for number, subject in enumerate(subjects(Path(folder))):
            prepared = ours(subject, target_of("8.9"), Path(folder) / f"ours{number}")
            for capability in CAPABILITIES:
                _three_by_qpipe(subject, prepared, capability, reproducible=True)
            _three_by_qpipe(subject, prepared, "8.9", reproducible=False)
            _three_by_hand(subject, prepared, Path(folder))


def _three_by_qpipe(subject: Subject, prepared: Prepared, capability: str, *, reproducible: bool) -> None:
    built = build(prepared, capability, builds=3, reproducible=reproducible)
    facts = {fact.name: fact.value for fact in built.facts}
    how = "qpipe" if reproducible else "qpipe, `reproducible: false`"
    counts = f"{facts['distinct_builds']:.0f} | | {facts['distinct_tactic_choices']:.0f}"
    print(f"| {subject.name} | {capability} | {how} | {counts} |", flush=True)
    for note in built.notes:
        print(f"<!-- {note} -->")


def _three_by_hand(subject: Subject, prepared: Prepared, folder: Path) -> None:
    made = [folder / f"hand{turn}" for turn in range(3)]
    for path in made:
        by_hand(prepared, path, "setarch", "-R")
    files = [np.fromfile(path, np.uint8) for path in made]
    differing = [len(one) if one.size != files[0].size else int((one != files[0]).sum()) for one in files[1:]]
    distinct = len({one.tobytes() for one in files})
    print(f"| {subject.name} | 8.9 | by hand | {distinct} | {max(differing)} | |", flush=True)


def main() -> None:
    """The tables that are asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="compare, cost, turns, bytes; all where none is named")
    parser.add_argument("--modelopt-python", help="interpreter of an environment with nvidia-modelopt[onnx]")
    given = parser.parse_args()
    commands: dict[str, Callable[[], None]] = {
        "compare": partial(compare, given.modelopt_python),
        "cost": cost,
        "turns": turns,
        "bytes": same_bytes,
    }
    for wanted in given.tables or commands:
        commands[wanted]()
        print()


if __name__ == "__main__":
    main()
