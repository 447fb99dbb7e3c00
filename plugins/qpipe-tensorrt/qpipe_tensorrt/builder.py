"""One engine from one graph: the vendor's builder, called in its own order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qpipe_tensorrt.demands import read_demands
from qpipe_tensorrt.journal import Journal, attach
from qpipe_tensorrt.monitor import Watch, attach_watch
from qpipe_tensorrt.parsing import parse
from qpipe_tensorrt.profiles import add_profiles
from qpipe_tensorrt.vendor import member

if TYPE_CHECKING:
    from qpipe.errors import BuildError
    from qpipe.plugins.backend import Progress
    from qpipe_tensorrt.api import IBuilderConfig, IHostMemory, Vendor
    from qpipe_tensorrt.job import Demand, Job


class Plan(NamedTuple):
    """What the builder made: the serialized engine and what it says of it."""

    data: IHostMemory
    """Readable as a buffer."""
    demands: tuple[Demand, ...]
    dump: str
    warnings: tuple[str, ...]
    profiles: int


def build_plan(vendor: Vendor, job: Job, progress: Progress) -> Plan:
    """Parse and build once.

    Raises:
        BuildError: TensorRT refused (`RefusedError`) or failed; with its reason in one line.
    """
    journal, watch = Journal(), Watch(progress)
    logger = attach(vendor, journal)
    builder = vendor.Builder(logger)
    network, parser = parse(vendor, builder, job.graph, logger, journal)
    demands = read_demands(vendor, network)
    config = builder.create_builder_config()
    configure(vendor, config, job)
    config.progress_monitor = attach_watch(vendor, watch)
    count = add_profiles(builder, config, network, job.profiles)
    complaint = _load_cache(config, job)
    data = builder.build_serialized_network(network, config)
    del parser  # it owns the weights: it had to live until here
    if watch.stopped_by is not None:
        raise watch.stopped_by
    if data is None:
        raise _refused(journal, job)
    _save_cache(config, job)
    warnings = tuple(dict.fromkeys((*complaint, *journal.warnings)))
    return Plan(data=data, demands=demands, dump=journal.dump, warnings=warnings, profiles=count)


def configure(vendor: Vendor, config: IBuilderConfig, job: Job) -> None:
    """Everything that the target asks of the builder."""
    config.profiling_verbosity = member(vendor.ProfilingVerbosity, "DETAILED")
    if job.workspace_bytes is not None:
        config.set_memory_pool_limit(member(vendor.MemoryPoolType, "WORKSPACE"), job.workspace_bytes)
    if job.optimization_level is not None:
        config.builder_optimization_level = job.optimization_level
    for name, wanted in job.flags:
        change = config.set_flag if wanted else config.clear_flag
        change(member(vendor.BuilderFlag, name))
    if job.ahead_of_time:
        _set_capabilities(vendor, config, job.capabilities)
    elif job.compatibility != "NONE":
        config.hardware_compatibility_level = member(vendor.HardwareCompatibilityLevel, job.compatibility)


def _set_capabilities(vendor: Vendor, config: IBuilderConfig, capabilities: tuple[str, ...]) -> None:
    config.num_compute_capabilities = len(capabilities)
    for index, number in enumerate(capabilities):
        config.set_compute_capability(member(vendor.ComputeCapability, "SM" + number.replace(".", "")), index)


def _load_cache(config: IBuilderConfig, job: Job) -> tuple[str, ...]:
    if not job.cache:
        return ()
    from qpipe_tensorrt.timingcache import load_cache

    complaint = load_cache(job.cache, config)
    return (complaint,) if complaint else ()


def _save_cache(config: IBuilderConfig, job: Job) -> None:
    if job.cache:
        from qpipe_tensorrt.timingcache import save_cache

        save_cache(job.cache, config)


def _refused(journal: Journal, job: Job) -> BuildError:
    from qpipe.errors import BuildError, RefusedError

    reason = journal.reason()
    hint, kind = "", BuildError
    if "workspace" in reason:
        limit = job.workspace_bytes
        hint = f"raise `workspace_bytes` (now {limit})" if limit is not None else "free memory on the device"
        # No device is asked ahead of time: the target's own limit is too small.
        kind = RefusedError if limit is not None and job.ahead_of_time else BuildError
    elif "no runners" in reason:
        kind = RefusedError
        hint = "this product has no kernel for that operator: leave it out of the model and compute it after the engine"
    elif "is not supported" in reason or "shape inference" in reason:
        kind = RefusedError
        hint = "another recipe, or these nodes in float (`keep_float`): its compiler does not take them in these types"
    return kind(f"TensorRT cannot build for {', '.join(job.capabilities)}: {reason}", hint=hint)
