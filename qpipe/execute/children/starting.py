"""A started child as its guard sees it: when it has ended, and what is left of it then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol


class Started(Protocol):
    """A process in a session and group of its own, not yet reaped: its id names nothing else."""

    pid: int

    def has_ended(self) -> bool:
        """Whether it waits to be reaped."""
        ...

    def reap(self) -> tuple[int, float]:
        """Exit status (or the negative signal that ended it), and CPU seconds with those children it waited for."""
        ...


class Spawned:
    """A fresh interpreter, started by this process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def has_ended(self) -> bool:
        """Whether it waits to be reaped."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self) -> tuple[int, float]:
        """Exit status and CPU seconds."""
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, usage.ru_utime + usage.ru_stime


def spawn(workdir: Path, progress: int, alive: int) -> Spawned:
    """Start `child.py` in a fresh interpreter; its output goes to `log.txt`."""
    with (workdir / "log.txt").open("wb") as log:
        return Spawned(start_program("child.py", str(workdir), descriptors=(progress, alive), output=log.fileno()))


def start_program(name: str, *arguments: str, descriptors: tuple[int, ...], output: int) -> subprocess.Popen[bytes]:
    """A program beside this file in a session of its own; its last arguments are the descriptors' numbers."""
    return subprocess.Popen(
        [sys.executable, "-u", "-P", str(Path(__file__).with_name(name)), *arguments, *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=_environment(),
        pass_fds=descriptors,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """The caller's environment as it is now; another thread may change it meanwhile."""
    found = {name: os.environ.get(name) for name in tuple(os.environ)}
    return {name: value for name, value in found.items() if value is not None} | {"PYTHONFAULTHANDLER": "1"}
