"""What the operating system lets this process have: files, memory, address space, threads (`ulimit`)."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from traceback import walk_tb

from qpipe.errors import UnavailableError

ROOM = "make room there, then run the same command again"
_NO_MEMORY = "this machine, or `ulimit -v`, gives no more memory: use fewer --workers, or raise the limit"
_NO_PROCESS = "no more processes or threads: raise `ulimit -u`, or the container's own limit, or use fewer --workers"
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
_RUN_THREADS = 8
"""Of the smallest run, beside those of OpenBLAS: 12 in all did with two processors (8 did not)."""
_CGROUP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_FEW_THREADS = 4096
"""A limit from which on nobody looks whether they can be had."""
WITHOUT_NUMPY = frozenset({"targets", "stages", "new-target"})
"""Commands that do with the address space and the thread that they have."""


def exhausted(error: BaseException) -> str:
    """What to do where the error says that something is used up; empty for every other error."""
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    if _starts_nothing(error):
        return _NO_PROCESS
    return EXHAUSTED.get(error.errno or 0, "") if isinstance(error, OSError) else ""


def _starts_nothing(error: BaseException) -> bool:
    """Whether a thread or a process could not be started; a lock that somebody holds has the same number."""
    if isinstance(error, RuntimeError):
        return str(error) == "can't start new thread"
    within = {frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__)}
    return isinstance(error, BlockingIOError) and "subprocess" in within


def check_allowance() -> None:
    """Refuse limits under which numpy and scipy cannot be imported, or end in ways that say something else.

    Raises:
        UnavailableError: a limit is too low.
    """
    check_address_space()
    check_threads()


def check_threads() -> None:
    """Refuse a limit of processes under which OpenBLAS gets no threads.

    It sends the process SIGINT then, which reads as Ctrl-C.

    Raises:
        UnavailableError: the limit is too low.
    """
    allowed, whose, hint = min(_limits_of_processes(), default=(_FEW_THREADS, "", ""))
    if allowed >= _FEW_THREADS:
        return
    needed = 2 * (_blas_threads() - 1) + _RUN_THREADS
    end = threading.Event()
    with ExitStack() as started:
        try:
            for _ in range(needed):
                thread = threading.Thread(target=end.wait)
                thread.start()
                started.callback(thread.join)
        except RuntimeError as error:
            raise UnavailableError(
                f"{whose}: {needed} more are needed",
                hint=hint,
            ) from error
        finally:
            end.set()


def _limits_of_processes() -> Iterator[tuple[int, str, str]]:
    """Each limit that there is, in words too, with what to do about it."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if allowed not in (resource.RLIM_INFINITY, -1):
        whose = f"`ulimit -u` allows {allowed:,} processes and threads of this user"
        yield allowed, whose, "`ulimit -u 4096`, or end other programs of this user"
    for file in _pids_files():
        with suppress(OSError, ValueError):  # not there, or `max`
            allowed = int(file.read_text())
            hint = "a higher limit, e.g. `docker run --pids-limit 4096`"
            yield allowed, f"the container (or cgroup) allows {allowed:,} processes and threads ({file})", hint


def _pids_files() -> Iterator[Path]:
    """Where the limit of our own cgroup may stand, in either version; within a container its path is not seen there.

    Source: cgroups(7), /proc/pid/cgroup; Linux Documentation/admin-guide/cgroup-v1/pids.rst and cgroup-v2.rst.
    """
    with suppress(OSError):
        for line in _CGROUP.read_text().splitlines():
            _, kinds, own = line.split(":", 2)
            if kinds in {"", "pids"}:
                root = _CGROUPS / kinds
                yield from dict.fromkeys((root / own.lstrip("/") / "pids.max", root / "pids.max"))


def _blas_threads() -> int:
    return min(len(os.sched_getaffinity(0)), _MOST_THREADS)


def check_address_space() -> None:
    """Refuse a limit under which numpy and scipy cannot be imported.

    OpenBLAS asks for its buffers again and again, for ever, where it gets none: within the import, with the
    interpreter's lock, so that no signal is heard.

    Raises:
        UnavailableError: the limit is too low.
    """
    threads = _blas_threads()
    for kind, least in _NEEDED_BYTES.items():
        needed = least + (threads - 1) * _THREAD_BYTES
        allowed, _ = resource.getrlimit(kind)
        if allowed not in (resource.RLIM_INFINITY, -1) and allowed < needed:
            raise UnavailableError(
                f"`ulimit {_OPTIONS[kind]}` allows {allowed >> 20:,} MiB of address space: "
                f"numpy and scipy need {needed >> 20:,} MiB with {threads} threads, and never end without",
                hint=f"`ulimit {_OPTIONS[kind]} unlimited`, or at least {needed >> 10}",
            )
