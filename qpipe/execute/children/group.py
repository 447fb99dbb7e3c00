"""The processes of one process group, and their memory, read from /proc: often, so as cheaply as Python can."""

from __future__ import annotations

import os
import signal

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READ_BYTES = 4096
"""More than any file has that is read here."""


def members(group: int) -> tuple[int, ...]:
    """Process ids of a group, zombies included."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208  (20 times a second)
        try:
            if name.isdigit() and os.getpgid(int(name)) == group:
                found.append(int(name))
        except ProcessLookupError:
            continue
    return tuple(found)


def resident_bytes(pids: tuple[int, ...]) -> int:
    """Sum of the resident sets. Pages that forked processes share count once for each of them."""
    return sum(_resident(pid) for pid in pids)


def peak_resident_bytes(pid: int) -> int:
    """The largest resident set that a process had since its program started (`VmHWM`); 0 if it is gone.

    Not `ru_maxrss`: that one starts with the resident set of the parent that forked it.
    """
    _, _, rest = _read(pid, "status").partition(b"VmHWM:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if rest else 0


def state(pid: int) -> str:
    """One letter (`R`, `S`, `Z` …) that says what a process does; empty if it is gone. Source: proc(5)."""
    _, _, rest = _read(pid, "stat").rpartition(b")")
    return rest.split(maxsplit=1)[0].decode() if rest else ""


def kill(group: int) -> None:
    """SIGKILL every process of a group; one that is empty already is fine."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _resident(pid: int) -> int:
    found = _read(pid, "statm").split()
    return int(found[1]) * _PAGE_BYTES if found else 0


def _read(pid: int, name: str) -> bytes:
    """One file of a process; nothing if it is gone."""
    try:
        file = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, _READ_BYTES)
    except OSError:  # it went away in between
        return b""
    finally:
        os.close(file)
