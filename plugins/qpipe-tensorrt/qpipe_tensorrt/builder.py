"""One engine from one graph: the vendor's builder, called in its own order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.errors import BuildError
from qpipe_tensorrt.api import IHostMemory, Vendor, member
from qpipe_tensorrt.demands import Demand, read_demands
from qpipe_tensorrt.journal import Journal, attach
from qpipe_tensorrt.monitor import Watch, attach_watch
from qpipe_tensorrt.parsing import parse
from qpipe_tensorrt.shapes import add_profiles

if TYPE_CHECKING:
    from pathlib import Path

    from qpipe.plugins.backend import Progress
    from qpipe_tensorrt.api import IBuilderConfig
    from qpipe_tensorrt.options import Options
    from qpipe_tensorrt.shapes import Profile
    from qpipe_tensorrt.timingcache import TimingCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to build."""

    graph: Path
    options: Options
    profiles: tuple[Profile, ...]
    cache: TimingCache | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the builder made: the serialized engine and what it says of it."""

    data: IHostMemory
    """Readable as a buffer."""
    demands: tuple[Demand, ...]
    dump: str
    warnings: tuple[str, ...]
    profiles: int


def build_plan(vendor: Vendor, order: Order, progress: Progress) -> Plan:
    """Parse and build once.

    Raises:
        BuildError: TensorRT refused; with its reason in one line.
    """
    journal, watch = Journal(), Watch(progress)
    logger = attach(vendor, journal)
    builder = vendor.Builder(logger)
    network, parser = parse(vendor, builder, order.graph, logger, journal)
    demands = read_demands(vendor, network)
    config = builder.create_builder_config()
    configure(vendor, config, order.options)
    config.progress_monitor = attach_watch(vendor, watch)
    count = add_profiles(builder, config, network, order.profiles)
    if order.cache is not None:
        order.cache.load(config)
    data = builder.build_serialized_network(network, config)
    del parser  # it owns the weights: it had to live until here
    if watch.stopped_by is not None:
        raise watch.stopped_by
    if data is None:
        raise _refused(journal, order.options)
    if order.cache is not None:
        order.cache.save(config)
    return Plan(
        data=data, demands=demands, dump=journal.dump, warnings=tuple(dict.fromkeys(journal.warnings)), profiles=count
    )


def configure(vendor: Vendor, config: IBuilderConfig, options: Options) -> None:
    """Everything that the target asks of the builder."""
    config.profiling_verbosity = member(vendor.ProfilingVerbosity, "DETAILED")
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(member(vendor.MemoryPoolType, "WORKSPACE"), options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    for name, wanted in (
        ("TF32", options.tf32),
        ("SPARSE_WEIGHTS", options.sparse_weights),
        ("STRICT_NANS", options.strict_nans),
        ("WEIGHT_STREAMING", options.weight_streaming),
        ("VERSION_COMPATIBLE", options.version_compatible),
    ):
        change = config.set_flag if wanted else config.clear_flag
        change(member(vendor.BuilderFlag, name))
    if options.vendor.builds_without_gpu:
        _set_capabilities(vendor, config, options)
    elif options.hardware_compatibility != "none":
        level = options.hardware_compatibility.upper().replace("-", "_").replace("SAME_", "SAME_COMPUTE_")
        config.hardware_compatibility_level = member(vendor.HardwareCompatibilityLevel, level)


def _set_capabilities(vendor: Vendor, config: IBuilderConfig, options: Options) -> None:
    config.num_compute_capabilities = len(options.capabilities)
    for index, number in enumerate(options.capabilities):
        config.set_compute_capability(member(vendor.ComputeCapability, "SM" + number.replace(".", "")), index)


def _refused(journal: Journal, options: Options) -> BuildError:
    reason = journal.reason()
    hint = ""
    if "workspace" in reason:
        limit = options.workspace_bytes
        hint = f"raise `workspace_bytes` (now {limit})" if limit is not None else "free memory on the device"
    return BuildError(f"TensorRT cannot build for {', '.join(options.capabilities)}: {reason}", hint=hint)
