"""From a prepared model to the files and facts of an engine."""

from __future__ import annotations

import gzip
import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.engine import Built, Fact
from qpipe_tensorrt import __version__
from qpipe_tensorrt.api import load_product
from qpipe_tensorrt.builder import Order, build_plan
from qpipe_tensorrt.layers import Layer, parse_layers
from qpipe_tensorrt.onnxgraph import OnnxGraph, read_graph
from qpipe_tensorrt.placement import place
from qpipe_tensorrt.portability import requirements
from qpipe_tensorrt.refusals import refuse
from qpipe_tensorrt.shapes import plan_profiles

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress
    from qpipe.records.engine import Prepared
    from qpipe.records.target import Target
    from qpipe_tensorrt.api import Vendor
    from qpipe_tensorrt.builder import Plan
    from qpipe_tensorrt.options import Options
    from qpipe_tensorrt.timingcache import TimingCache

ENGINE_FILE = Path("engine.trt")
DUMP_FILE = Path("layers.txt.gz")
"""The raw layer dump, as the builder wrote it."""
GRAPH_FILE = Path("simulated.onnx")
"""The graph that a simulated session runs; only with `simulate: true`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One of K builds, kept without its bytes."""

    sha256: str
    size_bytes: int
    seconds: float
    tactics: tuple[str, ...]


def build_engine(prepared: Prepared, target: Target, options: Options, workdir: Path, progress: Progress) -> Built:
    """Build K times and ship the first engine; the others tell how much the builder varies.

    Raises:
        BuildError: the graph or the builder's refusal, with the node's name where there is one.
        UnavailableError: the vendor's package is not installed.
    """
    progress.step("tensorrt: read graph")
    graph = read_graph(prepared.deployable.path)
    refuse(graph, options.capabilities, prepared.shapes)
    vendor = load_product(options.vendor)
    order = Order(
        graph=prepared.deployable.path,
        options=options,
        profiles=plan_profiles(prepared.shapes, target.batch_sizes, options.profiles),
        cache=_cache(options, vendor),
    )
    plan, first = _build(vendor, order, progress)
    built = _describe(plan, _ship(plan, workdir), graph, _toolchain(options, vendor))
    del plan  # its bytes lie in the work folder: K builds need no more memory than one
    others = tuple(_build(vendor, order, progress)[1] for _ in range(options.builds - 1))
    files = (*built.files, _keep_graph(order.graph, workdir)) if options.simulate else built.files
    return replace(
        built,
        files=files,
        facts=(*built.facts, *_spread_facts(first, others)),
        requires=requirements(options, vendor.__version__),
        notes=(*built.notes, *_spread_notes(first, others)),
    )


def _cache(options: Options, vendor: Vendor) -> TimingCache | None:
    from qpipe_tensorrt.driver import NoGpu, find_gpus
    from qpipe_tensorrt.timingcache import timing_cache

    gpus = () if options.vendor.builds_without_gpu else find_gpus()
    if isinstance(gpus, NoGpu) or not gpus:
        return None
    return timing_cache(options.timing_cache, vendor.__version__, gpus[0])


def _build(vendor: Vendor, order: Order, progress: Progress) -> tuple[Plan, _Try]:
    start = time.perf_counter()
    plan = build_plan(vendor, order, progress)
    seconds = time.perf_counter() - start
    data = memoryview(plan.data)  # type: ignore[arg-type]  # the vendor's host memory is a buffer
    tactics = tuple(layer.tactic for layer in parse_layers(plan.dump))
    made = _Try(sha256=hashlib.sha256(data).hexdigest(), size_bytes=data.nbytes, seconds=seconds, tactics=tactics)
    return plan, made


def _ship(plan: Plan, workdir: Path) -> tuple[Layer, ...]:
    (workdir / ENGINE_FILE).write_bytes(memoryview(plan.data))  # type: ignore[arg-type]  # a buffer
    with gzip.GzipFile(workdir / DUMP_FILE, "wb", mtime=0) as file:
        file.write(plan.dump.encode())
    return parse_layers(plan.dump)


def _toolchain(options: Options, vendor: Vendor) -> tuple[tuple[str, str], ...]:
    return (("qpipe-tensorrt", __version__), (options.vendor.module, vendor.__version__))


def _describe(plan: Plan, layers: tuple[Layer, ...], graph: OnnxGraph, toolchain: tuple[tuple[str, str], ...]) -> Built:
    operators = {node.name: node.op for node in graph.nodes}
    return Built(
        files=(ENGINE_FILE, DUMP_FILE),
        placement=place(plan.demands, layers, operators),
        facts=_layer_facts(layers, plan),
        toolchain=toolchain,
        notes=plan.warnings,
    )


def _keep_graph(path: Path, workdir: Path) -> Path:
    """The graph with its weights inside, for a session on the CPU."""
    import onnx

    model = onnx.load(path)
    onnx.save(model, workdir / GRAPH_FILE)
    return GRAPH_FILE


def _layer_facts(layers: tuple[Layer, ...], plan: Plan) -> tuple[Fact, ...]:
    counts = {
        "engine_layers": len(layers),
        "engine_roundings": sum(layer.roundings for layer in layers),
        "kernels_rounding_twice": sum(layer.roundings > 1 for layer in layers),
        "engine_reformats": sum(layer.moves for layer in layers),
        "optimization_profiles": plan.profiles,
    }
    return tuple(Fact(name=name, value=float(value), unit="1", kind="measured") for name, value in counts.items())


def _spread_facts(first: _Try, others: tuple[_Try, ...]) -> tuple[Fact, ...]:
    """Time and size of the engine that ships and, after several builds, how much they differ."""
    tries = (first, *others)
    sizes = [made.size_bytes for made in tries]
    facts = [
        Fact(name="build_s", value=first.seconds, unit="s", kind="measured"),
        Fact(name="engine_bytes", value=float(first.size_bytes), unit="B", kind="measured"),
    ]
    if others:
        counts = {
            "builds": len(tries),
            "distinct_builds": len({made.sha256 for made in tries}),
            "distinct_tactic_choices": len({made.tactics for made in tries}),
        }
        facts += [Fact(name=name, value=float(value), unit="1", kind="measured") for name, value in counts.items()]
        facts.append(Fact(name="engine_bytes_spread", value=float(max(sizes) - min(sizes)), unit="B", kind="measured"))
    return tuple(facts)


def _spread_notes(first: _Try, others: tuple[_Try, ...]) -> tuple[str, ...]:
    if not others:
        return ()
    tries = (first, *others)
    sizes = [made.size_bytes for made in tries]
    return (
        f"{len(tries)} builds: {len({made.sha256 for made in tries})} distinct engines, "
        f"{len({made.tactics for made in tries})} choices of tactics, {min(sizes)} to {max(sizes)} bytes; "
        "the first one ships and is judged",
    )
