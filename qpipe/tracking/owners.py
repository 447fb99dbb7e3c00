"""Which process works on a run, so that no other one is ever taken for it, nor it for one that is gone."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_HEARTBEAT = re.compile(
    r"(?P<pid>\d+)@(?P<host>\S+) (?P<at>\S+)(?: (?P<boot>[0-9a-f-]+)/(?P<space>\d+)/(?P<start>\d+))?"
)
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat after the command's name: fields 3 and 22. Source: proc(5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process by what no other one shares: pids are used again, and containers share host names."""

    pid: int
    host: str
    at: str
    """When it began, or went on with, the run."""
    place: tuple[str, str] | None
    """Boot id and the inode of its pid namespace; None where they are not known."""
    start: str | None
    """Start of the process, in clock ticks since boot."""

    def __str__(self) -> str:
        identity = "" if self.place is None else f" {self.place[0]}/{self.place[1]}/{self.start}"
        return f"{self.pid}@{self.host} {self.at}{identity}"

    def is_this_process(self) -> bool:
        """Whether it is the one that asks."""
        own = this_process()
        return (self.pid, self.host) == (own.pid, own.host) and (self.place, self.start) == (own.place, own.start)

    def is_near(self) -> bool:
        """Whether it is, or was, among the processes that can be seen from here: else nothing can be told of it."""
        own = this_process()
        return self.place is not None and (self.place, self.host) == (own.place, own.host)

    def is_gone(self) -> bool:
        """Whether it is known to have ended; False where that cannot be told."""
        if not self.is_near():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        found = _stat(self.pid)
        return bool(found) and (found[_START] != self.start or found[_STATE] in {"Z", "X"})


def this_process() -> Owner:
    """The process that asks, now."""
    pid, place, start = os.getpid(), None, None
    if (boot := _boot()) and (space := _space(pid)) and (found := _stat(pid)):
        place, start = (boot, space), found[_START]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return Owner(pid=pid, host=socket.gethostname(), at=at, place=place, start=start)


def read_owner(heartbeat: str) -> Owner | None:
    """The owner that a heartbeat names; None for what is none."""
    found = _HEARTBEAT.fullmatch(heartbeat)
    if found is None:
        return None
    place = (found["boot"], found["space"]) if found["boot"] else None
    return Owner(pid=int(found["pid"]), host=found["host"], at=found["at"], place=place, start=found["start"])


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _space(pid: int) -> str:
    """Inode of this process's pid namespace; empty where /proc shows that of another one."""
    try:
        if Path("/proc/self").readlink().name != str(pid):
            return ""
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; nothing where it cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
