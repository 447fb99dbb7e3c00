"""One job in one fresh interpreter: whatever it does, the caller gets an `Exit` and no process survives."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from qpipe.execute.children import group
from qpipe.execute.children.exits import Exit, ExitError, ExitKind, Usage, read_exit
from qpipe.execute.children.nursery import Nursery
from qpipe.execute.children.progress import Lines, ProgressEvent
from qpipe.execute.children.starting import Started, spawn
from qpipe.records.target import Limits

__all__ = ["Exit", "ExitError", "ExitKind", "ProgressEvent", "run_guarded"]

TICK_S = 0.1
"""How often limits and the stop event are looked at."""
LOOKS = 5
"""After so many looks it is asked again who else is in the child's group: that reads every process of the machine."""


def run_guarded(
    entry: str,
    request: str,
    *,
    workdir: Path,
    limits: Limits,
    on_progress: Callable[[ProgressEvent], None] | None = None,
    stop: threading.Event | None = None,
    nursery: Nursery | None = None,
) -> Exit:
    """Call `entry` (`module:function`, from `(str, Progress)` to `str`) in a fresh interpreter and wait for its end.

    With an open `nursery` the interpreter is forked from one that has imported what children need, instead of started.

    The child has a session of its own, so that Ctrl-C reaches it only through `stop` or an exception here; it and all
    processes of its group are killed before this function returns, also by an exception, and by the kernel if this
    process dies. The calling thread waits, so that PDEATHSIG, which follows the thread, cannot come early.

    `workdir` must exist; `request.json`, `result.json` and `log.txt` are written there. The child keeps the caller's
    working folder, environment and import path. A process that leaves the group (`setsid`) is not followed.
    """
    began = time.monotonic()
    job = {"entry": entry, "request": request, "path": [path or os.getcwd() for path in sys.path]}  # noqa: PTH109  (a str)
    (workdir / "request.json").write_text(json.dumps(job), encoding="utf-8")
    (workdir / "result.json").unlink(missing_ok=True)
    with _child(workdir, nursery) as child:
        ended = child.watch(limits, on_progress or _ignore, stop or threading.Event())
    return read_exit(workdir, ended, child.usage(time.monotonic() - began), limits)


@contextmanager
def _child(workdir: Path, nursery: Nursery | None) -> Iterator[_Child]:
    """A running child; its group is killed and it is waited for at the end of the block."""
    with ExitStack() as ours:
        progress, its_progress = os.pipe()
        ours.callback(os.close, progress)
        its_alive, alive = os.pipe()
        ours.callback(os.close, alive)
        try:
            forked = nursery.fork(workdir, its_progress, its_alive) if nursery is not None else None
            started = forked or spawn(workdir, its_progress, its_alive)
        finally:
            os.close(its_progress)
            os.close(its_alive)
        child = _Child(started, progress)
        try:
            yield child
        finally:
            child.end()


class _Child:
    """The child's process, what it says and what it uses."""

    def __init__(self, started: Started, progress: int) -> None:
        self.pid = started.pid
        self.peak_rss_bytes = 0
        self.cpu_seconds = 0.0
        self.status = 0
        """Negative signal or exit status, once it has ended."""
        self._started = started
        self._progress = progress
        self._lines = Lines()
        self._members: tuple[int, ...] = ()
        self._looks = 0
        self._nap_s = 0.0
        """How long to sleep once the pipe is closed: the child is about to end, or has closed it itself."""
        self._poller = select.poll()
        self._poller.register(progress, select.POLLIN)
        os.set_blocking(progress, False)

    def watch(self, limits: Limits, on_progress: Callable[[ProgressEvent], None], stop: threading.Event) -> ExitKind:
        """Wait for the end (`ok`, whatever it was), a limit or the stop event."""
        deadline = time.monotonic() + limits.timeout_s
        look = 0.0
        while not self._started.has_ended():
            self._listen(on_progress)
            now = time.monotonic()
            if stop.is_set():
                return "stopped"
            if now >= deadline:
                return "timeout"
            if now >= look:
                look = now + TICK_S
                if self._resident_bytes() > limits.memory_bytes:
                    return "memory"
        self._read(on_progress)
        return "ok"

    def end(self) -> None:
        """Kill the group, then reap the child: its id, and so the group's, is not reused before."""
        group.kill(self.pid)
        self.status, self.cpu_seconds = self._started.reap()

    def usage(self, seconds: float) -> Usage:
        """What it used, once it has ended."""
        return Usage(
            status=self.status,
            seconds=seconds,
            cpu_seconds=self.cpu_seconds,
            peak_rss_bytes=self.peak_rss_bytes,
        )

    def _listen(self, on_progress: Callable[[ProgressEvent], None]) -> None:
        """Wait up to one tick for progress or for the pipe's end."""
        if self._nap_s:
            time.sleep(self._nap_s)
            self._nap_s = min(TICK_S, self._nap_s * 2)
        elif self._poller.poll(TICK_S * 1000) and self._read(on_progress):
            self._nap_s = 0.0005

    def _read(self, on_progress: Callable[[ProgressEvent], None]) -> bool:
        """Pass on what is in the pipe; True at its end."""
        while True:
            try:
                data = os.read(self._progress, 65536)
            except BlockingIOError:
                return False
            if not data:
                return True
            for event in self._lines.feed(data):
                on_progress(event)

    def _resident_bytes(self) -> int:
        if self._looks % LOOKS == 0:
            self._members = group.members(self.pid)
        self._looks += 1
        resident = group.resident_bytes(self._members)
        self.peak_rss_bytes = max(self.peak_rss_bytes, resident, group.peak_resident_bytes(self.pid))
        return resident


def _ignore(_event: ProgressEvent) -> None:
    """Nobody listens."""
