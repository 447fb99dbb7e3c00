"""The runner on a device as an engine that gives outputs, with the device's own clocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.hosts.device import Device
from qpipe.hosts.remote import Border, Hello, Job, RemoteEngine

Array = NDArray[np.generic]


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

    def close(self) -> None:
        """End the runner; nothing stays on the device."""
        self._remote.close()
