"""The runner on a device as an engine that gives outputs, with the device's own clocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.hosts.device import Device
from qpipe.hosts.remote import Border, Hello, Job, RemoteEngine

Array = NDArray[np.generic]


_ALIASES = {"arm64": "aarch64"}


class DeviceEngine:
    """Adds up the device's times over the batches of one run."""

    def __init__(self, device: Device, job: Job, *, timeout_s: float) -> None:
        self._remote = RemoteEngine(device, job, timeout_s=timeout_s)
        self.hello: Hello = self._remote.hello
        self.inputs: tuple[Border, ...] = self.hello.inputs
        self.outputs: tuple[Border, ...] = self.hello.outputs
        self.device_ns = (0, 0)
        self.peak_rss_bytes = 0

    def run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """One batch there; its times are added to `device_ns`.

        Raises:
            EngineError: the device went away, the runtime failed, or no answer came in time.
        """
        answer = self._remote.run(arrays)
        wall_ns, cpu_ns = self.device_ns
        self.device_ns = (wall_ns + answer.wall_ns, cpu_ns + answer.cpu_ns)
        self.peak_rss_bytes = answer.peak_rss_bytes
        return answer.outputs

    def conditions(self) -> tuple[tuple[str, str], ...]:
        """Machine, governor, clock and temperatures of the device now.

        Raises:
            EngineError: as `run`.
        """
        return self._remote.conditions()

    def require_machine(self, arch: str) -> None:
        """Refuse a device of another architecture than the target's; empty takes any.

        Raises:
            EngineError: naming both.
        """
        found = dict(self.hello.conditions).get("machine", "")
        if arch and found and _ALIASES.get(found, found) != _ALIASES.get(arch, arch):
            raise EngineError(f"the target is {arch}, the device is {found}", hint="correct the target's `host:`")

    def close(self) -> None:
        """End the runner; nothing stays on the device."""
        self._remote.close()
