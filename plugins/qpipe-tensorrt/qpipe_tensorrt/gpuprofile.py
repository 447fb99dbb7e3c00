"""What a GPU alone can tell of an engine: device time by events, memory, layers, clocks. Not run here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe_tensorrt.api import Vendor, member
from qpipe_tensorrt.clocks import Clocks, read_clocks

if TYPE_CHECKING:
    from qpipe.plugins.backend import Tensors
    from qpipe.records.evidence import NotMeasured
    from qpipe_tensorrt.session import GpuSession


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTimes:
    """One batch size: the first run, and device time of later ones without transfers."""

    batch: int
    cold_ms: float
    """Wall time of the very first run: kernels are still loaded or compiled."""
    warm_ms: tuple[float, ...]
    """Raw device times between two events, one per run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """All of it, with the clocks before and after."""

    times: tuple[DeviceTimes, ...]
    device_memory_bytes: int
    """Memory that went from the device while the sweep ran, with buffers, context and engine already there."""
    activation_bytes: int
    layers_json: str
    clocks: tuple[Clocks | NotMeasured, Clocks | NotMeasured]


def profile_on_gpu(
    vendor: Vendor, session: GpuSession, batch_of: Callable[[int], Tensors], batches: tuple[int, ...], rounds: int = 50
) -> GpuProfile:
    """Sweep batch sizes; `batch_of(n)` gives inputs with n rows."""
    before, free = read_clocks(0), session.cuda.free_bytes()
    times = tuple(_times(session, batch_of(size), size, rounds) for size in batches)
    return GpuProfile(
        times=times,
        device_memory_bytes=max(free - session.cuda.free_bytes(), 0),
        activation_bytes=session.engine.device_memory_size_v2,
        layers_json=inspect_layers(vendor, session),
        clocks=(before, read_clocks(0)),
    )


def inspect_layers(vendor: Vendor, session: GpuSession) -> str:
    """The engine inspector's JSON: one entry per layer with types, formats and tactics."""
    inspector = session.engine.create_engine_inspector()
    inspector.execution_context = session.context
    return inspector.get_engine_information(member(vendor.LayerInformationFormat, "JSON"))


def _times(session: GpuSession, inputs: Tensors, size: int, rounds: int) -> DeviceTimes:
    start = time.perf_counter()
    session.run(inputs)
    cold_ms = (time.perf_counter() - start) * 1000
    session.run(inputs)
    session.run(inputs)
    return DeviceTimes(batch=size, cold_ms=cold_ms, warm_ms=tuple(_device_ms(session, inputs) for _ in range(rounds)))


def _device_ms(session: GpuSession, inputs: Tensors) -> float:
    """Device time of one inference: inputs are uploaded and waited for before the first event."""
    arrays = session.upload(inputs)
    key = tuple((name, array.shape) for name, array in arrays.items())
    cuda = session.cuda
    cuda.wait()
    first, last = cuda.event(), cuda.event()
    cuda.record(first)
    session.execute(key)
    cuda.record(last)
    elapsed = cuda.elapsed_ms(first, last)
    cuda.drop_event(first)
    cuda.drop_event(last)
    return elapsed
