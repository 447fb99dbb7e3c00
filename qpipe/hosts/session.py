"""A session on a target's host: what the runner on a device gives, under the model's own names and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from qpipe.errors import EngineError
from qpipe.hosts.agreement import Agreement
from qpipe.hosts.device import open_device
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.known_answer import KnownNetwork, ask_network
from qpipe.hosts.remote import Job
from qpipe.plugins.backend import Session, Tensors
from qpipe.records.engine import Kind
from qpipe.records.target import Target

Dress: TypeAlias = Callable[[DeviceEngine, Kind], Session]
"""Puts the model's names, shapes and dtypes around an engine that has those of its file."""


class DeviceSession:
    """A session whose times, memory and conditions are the device's: what goes over the wire is not in them."""

    def __init__(self, engine: DeviceEngine, dressed: Session) -> None:
        self.kind: Kind = dressed.kind
        self.signature = dressed.signature
        self._engine = engine
        self._dressed = dressed

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name, for one batch of inputs by name; the device's clocks start at zero.

        Raises:
            EngineError: the device went away, or the runtime refused the batch.
        """
        self._engine.device_ns = (0, 0)
        return self._dressed.run(inputs)

    def close(self) -> None:
        """End the runner; nothing stays on the device."""
        self._dressed.close()

    @property
    def device_ns(self) -> tuple[int, int]:
        """Wall and CPU nanoseconds of the last run on the device, summed over rows that ran one by one."""
        return self._engine.device_ns

    @property
    def device_memory_bytes(self) -> tuple[int, int]:
        """Peak resident set of the runner: before the engine was loaded, and until now."""
        return self._engine.hello.before_rss_bytes, self._engine.peak_rss_bytes

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        """Version of the runtime there, machine, governor, clock and temperatures now."""
        return (("runtime", self._engine.hello.version), *self._engine.conditions())


class EmulatedSession(DeviceSession):
    """One under an emulator, whose times mean nothing. It runs every batch here too, and says how far outputs are."""

    def __init__(self, engine: DeviceEngine, dressed: Session, *, here: Session, known: str) -> None:
        super().__init__(engine, dressed)
        self._here = here
        self._known = known
        self._agreement = Agreement()

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name, as the emulator gives them."""
        found = super().run(inputs)
        self._agreement.add(self._here.run(inputs), found)
        return found

    def close(self) -> None:
        """End both."""
        super().close()
        self._here.close()

    @property
    def remarks(self) -> tuple[str, ...]:
        """The agreement over all runs so far, and the known answer that the emulator gave first."""
        return (self._agreement.remark, self._known)


def open_on_host(
    target: Target, job: Job, *, python: str, network: KnownNetwork, dress: Dress, here: Callable[[], Session]
) -> DeviceSession:
    """A session on the target's host. An emulator must first give the known answer, and is compared with `here`.

    Raises:
        EngineError: the device is unreachable, lacks the runtime, or computes wrong results.
    """
    device, timeout_s = open_device(target.host, python=python), target.limits.timeout_s
    emulated = device.kind == "emulated"
    known = ask_network(open_device(target.host), network, timeout_s=timeout_s) if emulated else ""
    engine = DeviceEngine(device, job, timeout_s=timeout_s)
    try:
        engine.require_machine(target.arch)
        dressed = dress(engine, device.kind)
        return (
            EmulatedSession(engine, dressed, here=here(), known=known) if emulated else DeviceSession(engine, dressed)
        )
    except EngineError:
        engine.close()
        raise
