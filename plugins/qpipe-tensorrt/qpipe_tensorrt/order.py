"""What to build, and the job that it is for the builder's process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe_tensorrt.job import Job

if TYPE_CHECKING:
    from pathlib import Path

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


def job_of(order: Order, graph: str) -> Job:
    """The order in plain values; `graph` is where the builder finds the model."""
    options = order.options
    return Job(
        graph=graph,
        module=options.vendor.module,
        extra=options.vendor.extra,
        capabilities=options.capabilities,
        ahead_of_time=options.vendor.builds_without_gpu,
        flags=(
            ("TF32", options.tf32),
            ("SPARSE_WEIGHTS", options.sparse_weights),
            ("STRICT_NANS", options.strict_nans),
            ("WEIGHT_STREAMING", options.weight_streaming),
            ("VERSION_COMPATIBLE", options.version_compatible),
        ),
        workspace_bytes=options.workspace_bytes,
        optimization_level=options.optimization_level,
        compatibility=_LEVELS[options.hardware_compatibility],
        profiles=tuple(
            tuple((item.name, item.low, item.best, item.high) for item in profile) for profile in order.profiles
        ),
        cache="" if order.cache is None else str(order.cache.file),
        in_turn=options.reproducible,
    )


_LEVELS = {"none": "NONE", "same-capability": "SAME_COMPUTE_CAPABILITY", "ampere-plus": "AMPERE_PLUS"}
