"""What the operating system lets this process have: file descriptors, memory, address space (`ulimit`)."""

from __future__ import annotations

import errno
import os
import resource

from qpipe.errors import UnavailableError

ROOM = "make room there, then run the same command again"
_NO_MEMORY = "this machine, or `ulimit -v`, gives no more memory: use fewer --workers, or raise the limit"
EXHAUSTED = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EMFILE: "a process may open no more files: raise `ulimit -n` to 1024, then run the same command again",
    errno.ENFILE: "this machine may open no more files: raise fs.file-max, then run the same command again",
    errno.ENOMEM: _NO_MEMORY,
}
"""What to do about what the operating system has no more of, by the number of the error: nobody's bug."""

_NEEDED_BYTES = {resource.RLIMIT_AS: 900 << 20, resource.RLIMIT_DATA: 400 << 20}
"""Of a small run with one thread. Measured with two (x86-64, Linux): `VmPeak` 737 MiB, `VmData` 257 MiB; under a limit
of 781 MiB a run never ended, under 1024 MiB it did."""
_THREAD_BYTES = 80 << 20
"""Of each further thread: numpy and scipy bring an OpenBLAS each, with 32 MiB of buffer and 8 MiB of stack."""
_MOST_THREADS = 64
"""Of the OpenBLAS that numpy and scipy bring."""
_OPTIONS = {resource.RLIMIT_AS: "-v", resource.RLIMIT_DATA: "-d"}


def exhausted(error: BaseException) -> str:
    """What to do where the error says that something is used up; empty for every other error."""
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    return EXHAUSTED.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def check_address_space() -> None:
    """Refuse a limit under which numpy and scipy cannot be imported.

    OpenBLAS asks for its buffers again and again, for ever, where it gets none: within the import, with the
    interpreter's lock, so that no signal is heard.

    Raises:
        UnavailableError: the limit is too low.
    """
    threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
    for kind, least in _NEEDED_BYTES.items():
        needed = least + (threads - 1) * _THREAD_BYTES
        allowed, _ = resource.getrlimit(kind)
        if allowed not in (resource.RLIM_INFINITY, -1) and allowed < needed:
            raise UnavailableError(
                f"`ulimit {_OPTIONS[kind]}` allows {allowed >> 20:,} MiB of address space: "
                f"numpy and scipy need {needed >> 20:,} MiB with {threads} threads, and never end without",
                hint=f"`ulimit {_OPTIONS[kind]} unlimited`, or at least {needed >> 10}",
            )
