"""From a prepared model to the files and facts of an engine."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.errors import UnavailableError
from qpipe.records.engine import Built, Fact
from qpipe_tensorrt import __version__
from qpipe_tensorrt.availability import missing_package
from qpipe_tensorrt.child import randomized, run_build, run_inspection
from qpipe_tensorrt.inspection import LAYERS_FILE, can_inspect
from qpipe_tensorrt.layers import Layer, UnreadableDumpError, by_profile, parse_layers
from qpipe_tensorrt.loops import parsable
from qpipe_tensorrt.onnxgraph import OnnxGraph, read_graph
from qpipe_tensorrt.order import Order
from qpipe_tensorrt.placement import counts, place
from qpipe_tensorrt.portability import requirements
from qpipe_tensorrt.products import installed_version
from qpipe_tensorrt.refusals import refuse
from qpipe_tensorrt.shapes import profiles_of
from qpipe_tensorrt.turns import Turn
from qpipe_tensorrt.worker import ENGINE_FILE

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress
    from qpipe.records.engine import Prepared
    from qpipe.records.target import Target
    from qpipe_tensorrt.job import Reply
    from qpipe_tensorrt.options import Options
    from qpipe_tensorrt.timingcache import TimingCache

DUMP_FILE = "layers.txt.gz"
"""The raw layer dump, as the builder wrote it."""
GRAPH_FILE = "simulated.onnx"
"""The graph that a simulated session runs; only with `simulate: true`."""

_UNCOMPARED = "the engine's answers were not compared with the graph's at build: it runs on its GPU alone"
_DOUBLE = "float64 inside the graph is calculated in float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One of K builds, kept without its bytes."""

    reply: Reply
    layers: tuple[Layer, ...]
    complaint: str
    """Why there are no layers, where the dump cannot be read: the placement is then not known."""
    sha256: str
    size_bytes: int

    @property
    def tactics(self) -> tuple[str, ...]:
        """Which kernel implements each layer."""
        return tuple(layer.tactic for layer in self.layers) or (self.reply.dump,)


def build_engine(  # noqa: PLR0917 - those of `Backend.build`, and the cache
    prepared: Prepared,
    target: Target,
    options: Options,
    workdir: Path,
    progress: Progress,
    cache: TimingCache | None = None,
) -> Built:
    """Build K times and ship the first engine; the others tell how much the builder varies.

    Only the first one knows the timing cache: builds that read the same tactics from it would not vary.

    Raises:
        BuildError: the graph or the builder's refusal, with the node's name where there is one.
        UnavailableError: the vendor's package is not installed.
    """
    progress.step("tensorrt: read graph")
    graph = read_graph(prepared.deployable.path)
    refuse(graph, options.capabilities, prepared.shapes)
    _check_package(options)
    with parsable(prepared.deployable.path.resolve(), graph, workdir.resolve()) as model:
        order = Order(
            graph=model,
            options=options,
            profiles=profiles_of(prepared, target.batch_sizes, options),
            cache=cache,
        )
        turns = [Turn(progress=progress, number=one + 1, builds=options.builds) for one in range(options.builds)]
        tries = [_build(order, workdir.resolve(), turns[0])]
        for turn in turns[1:]:
            with TemporaryDirectory(dir=workdir) as folder:
                tries.append(_build(replace(order, cache=None), Path(folder), turn))
        return _describe(tuple(tries), graph, order, workdir)


def _check_package(options: Options) -> None:
    missing = missing_package(options, installed_version(options.vendor))
    if missing is not None:
        raise UnavailableError(missing.reason, hint=missing.hint)


def _build(order: Order, folder: Path, progress: Progress) -> _Try:
    reply = run_build(order, folder, progress)
    engine = folder / ENGINE_FILE
    with engine.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    layers, complaint = _layers(reply.dump)
    size_bytes = engine.stat().st_size
    return _Try(reply=reply, layers=layers, complaint=complaint, sha256=sha256, size_bytes=size_bytes)


def _layers(dump: str) -> tuple[tuple[Layer, ...], str]:
    """A dump of another form costs the placement report, not the engine."""
    try:
        return parse_layers(dump), "" if dump else "TensorRT gave no layer dump: placement is not known"
    except UnreadableDumpError as error:
        return (), f"placement is not known: {error}"


def _describe(tries: tuple[_Try, ...], graph: OnnxGraph, order: Order, workdir: Path) -> Built:
    shipped = tries[0]
    with gzip.GzipFile(workdir / DUMP_FILE, "wb", mtime=0) as file:
        file.write(shipped.reply.dump.encode())
    files = [Path(ENGINE_FILE), Path(DUMP_FILE)]
    if order.options.simulate:
        files.append(_keep_graph(order.graph, workdir))
    version = shipped.reply.version
    artifacts, uninspected = _inspect(workdir, order.options)
    return Built(
        files=tuple(files),
        artifacts=artifacts,
        placement=place(shipped.reply.demands, shipped.layers, {node.name: node.op for node in graph.nodes}),
        facts=(*_layer_facts(shipped), *_build_facts(shipped), *_spread_facts(tries)),
        requires=requirements(order.options, version),
        toolchain=(("qpipe-tensorrt", __version__), (order.options.vendor.module, version)),
        notes=(
            *((shipped.complaint,) if shipped.complaint else ()),
            *((uninspected,) if uninspected else ()),
            *((_DOUBLE,) if "DOUBLE" in graph.dtypes else ()),
            *shipped.reply.warnings,
            *_schedule_notes(order.options, shipped.reply),
            *_spread_notes(tries),
            _UNCOMPARED,
        ),
    )


def _inspect(workdir: Path, options: Options) -> tuple[tuple[Path, ...], str]:
    """The inspector's account of the engine that ships, where a GPU can load it; and what went wrong."""
    if not can_inspect(options):
        return (), ""
    complaint = run_inspection(workdir.resolve() / ENGINE_FILE, options)
    return ((), complaint) if complaint else ((Path(LAYERS_FILE),), "")


def _schedule_notes(options: Options, reply: Reply) -> tuple[str, ...]:
    if not options.reproducible or reply.in_turn:
        return ()
    return ("builds of a large network may differ in names: no first-in-first-out schedule (it needs CAP_SYS_NICE)",)


def _keep_graph(path: Path, workdir: Path) -> Path:
    """The graph with its weights inside, for a session on the CPU."""
    import onnx

    onnx.save(onnx.load(path), workdir / GRAPH_FILE)
    return Path(GRAPH_FILE)


def _layer_facts(shipped: _Try) -> tuple[Fact, ...]:
    profiles = _count("optimization_profiles", shipped.reply.profiles)
    if not shipped.layers:
        return (profiles,)
    found = counts(by_profile(shipped.layers))
    return (*(_count(name, value) for name, value in found.items()), profiles)


def _build_facts(shipped: _Try) -> tuple[Fact, ...]:
    return (
        Fact(name="build_s", value=shipped.reply.seconds, unit="s", kind="measured"),
        Fact(name="build_cpu_s", value=shipped.reply.cpu_seconds, unit="s", kind="measured"),
        Fact(name="build_peak_rss_bytes", value=float(shipped.reply.peak_rss_bytes), unit="B", kind="measured"),
        Fact(name="engine_bytes", value=float(shipped.size_bytes), unit="B", kind="measured"),
    )


def _spread_facts(tries: tuple[_Try, ...]) -> tuple[Fact, ...]:
    """How much several builds differ from the one that ships."""
    if len(tries) == 1:
        return ()
    sizes = [made.size_bytes for made in tries]
    return (
        _count("builds", len(tries)),
        _count("distinct_builds", len({made.sha256 for made in tries})),
        _count("distinct_tactic_choices", len({made.tactics for made in tries})),
        Fact(name="engine_bytes_spread", value=float(max(sizes) - min(sizes)), unit="B", kind="measured"),
    )


def _spread_notes(tries: tuple[_Try, ...]) -> tuple[str, ...]:
    if len(tries) == 1:
        return ()
    sizes = [made.size_bytes for made in tries]
    distinct, tactics = len({made.sha256 for made in tries}), len({made.tactics for made in tries})
    notes = [
        f"{len(tries)} builds: {distinct} distinct engines, {tactics} choices of tactics, "
        f"{min(sizes)} to {max(sizes)} bytes; the first one ships and is judged"
    ]
    if distinct > 1 and tactics == 1:
        cause = " (this system forbids a fixed memory layout)" if randomized() else ""
        notes.append(f"the builder's bytes vary, its choice of kernels does not{cause}")
    return tuple(notes)


def _count(name: str, value: int) -> Fact:
    return Fact(name=name, value=float(value), unit="1", kind="measured")
