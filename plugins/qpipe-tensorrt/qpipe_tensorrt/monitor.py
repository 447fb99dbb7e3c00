"""The builder's progress told to ours, and a way to stop it."""

from __future__ import annotations

from _thread import allocate_lock as Lock  # noqa: N812 - `threading` would be loaded for this alone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress
    from qpipe_tensorrt.api import Vendor


class Watch:
    """Turns the builder's phases into steps; whatever `progress` raises (Ctrl-C too) stops the builder."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.stopped_by: BaseException | None = None
        self.outermost: str | None = None
        self._lock = Lock()

    def started(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase begins; only the outermost one becomes a step of ours, since phases nest."""
        if parent is None:
            self.outermost = phase
            self._tell(phase, steps)

    def stepped(self, phase: str) -> bool:
        """A step is done; False asks the builder to stop. Inner phases advance by 0: a chance to stop, no more."""
        self._tell(phase, None)
        return self.stopped_by is None

    def _tell(self, phase: str, steps: int | None) -> None:
        with self._lock:
            try:
                if steps is not None:
                    self.progress.step(f"tensorrt: {phase.lower()}", total=steps)
                else:
                    self.progress.advance(1 if phase == self.outermost else 0)
            except BaseException as error:  # noqa: BLE001 - must not pass through the vendor's C++; raised after it
                self.stopped_by = error


def attach_watch(vendor: Vendor, watch: Watch) -> object:
    """A monitor of the vendor's type that tells the watch."""

    def start(self: object) -> None:
        vendor.IProgressMonitor.__init__(self)  # type: ignore[misc]  # the vendor demands its own initializer

    def phase_start(self: object, phase: str, parent: str | None, steps: int) -> None:  # noqa: ARG001 - vendor's
        watch.started(phase, parent, steps)

    def step_complete(self: object, phase: str, step: int) -> bool:  # noqa: ARG001 - the vendor's signature
        return watch.stepped(phase)

    def phase_finish(self: object, phase: str) -> None:  # noqa: ARG001 - the vendor's signature
        return None

    members = {
        "__init__": start,
        "phase_start": phase_start,
        "step_complete": step_complete,
        "phase_finish": phase_finish,
    }
    monitor: object = type("WatchMonitor", (vendor.IProgressMonitor,), members)()
    return monitor
