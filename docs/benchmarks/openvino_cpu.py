"""OpenVINO beside ONNX Runtime on this CPU, one thread: ResNet-20 and MiniLM.

    QPIPE_BENCH_DATA=/path/to/data python docs/benchmarks/openvino_cpu.py [--rounds 200] [--rows 512]

Each line is one engine: what ran on integers, SQNR of its outputs against the float model, and at batch 1 and 8 the
median of per-round ratios of thread CPU time to ONNX Runtime's float engine, with quartiles. All engines of a model are
open in one process and run on the same input in random order.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from latency import Case, build, cases
from machine import describe_machine, require_data
from qpipe_onnxruntime.backend import OnnxRuntimeBackend
from qpipe_openvino.backend import OpenVinoBackend

from qpipe.data import open_role
from qpipe.engines import read_engine
from qpipe.measure.collector import no_collector
from qpipe.measure.feeds import make_feeds
from qpipe.models import read_model
from qpipe.plugins.backend import Backend, Session, Tensors
from qpipe.records.engine import Engine
from qpipe.records.model import Model
from qpipe.records.target import Target

BACKENDS: tuple[Backend, ...] = (OnnxRuntimeBackend(), OpenVinoBackend())
RECIPES = {"resnet20-cifar10": ("none", "int8", "bf16"), "minilm-l6-sts": ("none", "int8", "dynamic", "bf16")}
SHAPES = ("free", "fixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One engine, open."""

    name: str
    engine: Engine
    session: Session


def has(backend: Backend, target: Target, recipe: str) -> bool:
    """Whether the backend's scheme has the arithmetic of a recipe."""
    scheme = backend.scheme(target)
    return {"dynamic": bool(scheme.dynamic_ops), "bf16": "bfloat16" in scheme.float_types}.get(recipe, True)


def open_lanes(case: Case, model: Model, folder: Path) -> tuple[Lane, ...]:
    """ONNX Runtime's float engine first; OpenVINO's engines with free and with fixed shapes."""
    lanes = []
    for backend in BACKENDS:
        target = Target(name=backend.name, backend=backend.name)
        for recipe in (one for one in RECIPES[case.model] if has(backend, target, one)):
            made = build(case, model, recipe, folder / backend.name / recipe, backend=backend, target=target)
            engine = read_engine(made)
            for shapes in SHAPES if backend.name == "openvino" else ("",):
                chosen = replace(target, options={"shapes": shapes} if shapes else {})
                name = " ".join(filter(None, (backend.name, recipe, shapes)))
                lanes.append(Lane(name=name, engine=engine, session=backend.open(engine, chosen)))
    return tuple(lanes)


def ratios(lanes: tuple[Lane, ...], inputs: tuple[Tensors, ...], rounds: int) -> dict[str, str]:
    """Median ratio of thread CPU time to the first lane, with quartiles, by lane."""
    spent, order = np.zeros((rounds, len(lanes))), np.random.default_rng(0)
    with no_collector():
        for turn in range(-3, rounds):  # three rounds to warm up
            for lane in order.permutation(len(lanes)):  # in rotating order each would keep the same neighbour
                begin = time.thread_time_ns()
                lanes[lane].session.run(inputs[turn % len(inputs)])
                if turn >= 0:
                    spent[turn, lane] = time.thread_time_ns() - begin
    low, median, high = np.percentile(spent / spent[:, :1], (25, 50, 75), axis=0)
    return {one.name: f"{median[at]:.3f} [{low[at]:.3f}, {high[at]:.3f}]" for at, one in enumerate(lanes)}


def sqnr_db(lane: Lane, reference: Lane, batches: list[Tensors]) -> float:
    """Of the first output."""
    name = lane.session.signature.outputs[0].name
    signal = noise = 0.0
    for batch in batches:
        wanted = np.asarray(reference.session.run(batch)[name], np.float64)
        signal += float((wanted**2).sum())
        noise += float(((np.asarray(lane.session.run(batch)[name], np.float64) - wanted) ** 2).sum())
    return 10 * float(np.log10(signal / noise)) if noise else float("inf")


def show(case: Case, folder: Path, *, rounds: int, rows: int) -> None:
    """Print the lines of one model."""
    path = require_data() / f"{case.model}.onnx"
    model = read_model(path, name=case.model, origin=str(path))
    lanes = open_lanes(case, model, folder)
    role = open_role(case.data, "gate", model.signature)
    feeds = make_feeds(role.batches(), (1, 8), model.signature)
    found = {size: ratios(lanes, inputs, max(rounds // size, 20)) for size, inputs in feeds.items()}
    batches: list[Tensors] = []
    for batch in role.batches():
        batches.append(batch)
        if sum(len(next(iter(one.values()))) for one in batches) >= rows:
            break
    for lane in lanes:
        place, noise = lane.engine.placement, sqnr_db(lane, lanes[0], batches)
        cells = (case.model, lane.name, f"{place.integer} of {place.integer + place.float}" if place else "–")
        numbers = (f"{noise:.1f}", f"{lane.engine.size_bytes:,}", *(column[lane.name] for column in found.values()))
        print(f"| {' | '.join((*cells, *numbers))} |", flush=True)


def main() -> None:
    """Measure both models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--rows", type=int, default=512)
    args = parser.parse_args()
    heads = ("model", "engine", "low precision", "SQNR, dB", "bytes", "CPU ratio, batch 1", "batch 8")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    with TemporaryDirectory() as folder:
        for case in cases(require_data()):
            show(case, Path(folder) / case.model, rounds=args.rounds, rows=args.rows)
    print(f"\n{describe_machine()}")


if __name__ == "__main__":
    main()
