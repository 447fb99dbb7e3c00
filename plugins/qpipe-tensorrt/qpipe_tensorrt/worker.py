"""The process that calls the vendor's builder: one build, then it ends.

Request and reply are marshalled tuples between two halves of this plugin; progress goes to stdout, a line each. It
imports little beside the vendor's module: what it loads is part of the cost of every build.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import time
from typing import TYPE_CHECKING

from qpipe_tensorrt.builder import Plan, build_plan
from qpipe_tensorrt.job import Job, Refusal, Reply, packed
from qpipe_tensorrt.vendor import load_vendor

if TYPE_CHECKING:
    from qpipe_tensorrt.cuda import Cuda

ENGINE_FILE = "engine.trt"
REQUEST = "order"
REPLY = "reply"
_PDEATHSIG = 1  # PR_SET_PDEATHSIG
_SIGINT, _SIGKILL, _SIG_IGN = 2, 9, 1  # the module `signal` would be loaded for these alone
_TURN_LIMIT_US = 120_000_000
"""CPU time of one turn. Whoever waits for another thread without giving way would keep the only CPU for ever."""


class Lines:
    """Progress as lines on a stream of its own, since the vendor may write to stdout: `total name`, or an amount."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def step(self, name: str, *, total: int | None = None) -> None:
        """A new step begins."""
        os.write(self._descriptor, f"{'-' if total is None else total} {' '.join(name.split())}\n".encode())

    def advance(self, amount: int = 1) -> None:
        """Part of the current step is done; 0 would tell nothing."""
        if amount:
            os.write(self._descriptor, b"%d\n" % amount)


def main() -> None:
    """Build what the order in the working folder says; engine and reply are left there."""
    _die_with_parent()
    lines = Lines(os.dup(1))
    os.dup2(2, 1)
    with open(REQUEST, "rb") as file:  # noqa: PTH123 - pathlib is not loaded here
        job = Job._make(marshal.load(file))
    try:
        outcome: Reply | Refusal = _build(job, lines)
    except Exception as error:  # noqa: BLE001 - whatever is not ours is raised again
        outcome = _refusal(error)
    with open(REPLY, "wb") as file:  # noqa: PTH123
        file.write(packed(outcome))


def take_turns() -> bool:
    """Let threads that start from here on run on one CPU, first in first out; False where the system does not grant it.

    Which CPU differs from process to process, so that builds at the same time do not queue for one.
    Source: sched(7), "SCHED_FIFO" and "RLIMIT_RTTIME".
    """
    import resource

    cpus = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setaffinity(0, {cpus[os.getpid() % len(cpus)]})
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (_TURN_LIMIT_US, hard))  # the process ends by SIGXCPU
    return True


def _build(job: Job, lines: Lines) -> Reply:
    in_turn = job.in_turn and take_turns()
    gpu = _occupy_gpu(job)
    vendor = load_vendor(job.module, job.extra)
    start, cpu_start = time.perf_counter(), time.process_time()
    plan: Plan = build_plan(vendor, job, lines)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    if gpu is not None:
        gpu.close()
    with open(ENGINE_FILE, "wb") as file:  # noqa: PTH123
        file.write(memoryview(plan.data))  # type: ignore[arg-type]  # the vendor's memory is a buffer
    return Reply(
        demands=plan.demands,
        dump=plan.dump,
        warnings=plan.warnings,
        profiles=plan.profiles,
        version=vendor.__version__,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_rss_bytes=_peak_rss_bytes(),
        in_turn=in_turn,
    )


def _refusal(error: Exception) -> Refusal:
    """An error that the user can act on; any other one keeps its traceback."""
    from qpipe.errors import QpipeError

    if not isinstance(error, QpipeError):
        raise error
    return Refusal(error=type(error).__name__, message=error.message, hint=error.hint)


def _peak_rss_bytes() -> int:
    """Peak of this program alone: `ru_maxrss` would count the process that started it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _occupy_gpu(job: Job) -> Cuda | None:
    """Make the target's GPU the current one where the builder measures on it; not run here: no NVIDIA driver.

    Raises:
        UnavailableError: it is not here.
    """
    if job.ahead_of_time:
        return None
    from qpipe.errors import UnavailableError
    from qpipe_tensorrt.cuda import Cuda
    from qpipe_tensorrt.driver import find_gpus, serving

    gpu = serving(find_gpus(), job.capabilities)
    if gpu is None:
        raise UnavailableError(f"no GPU of compute capability {job.capabilities[0]} to build on")
    return Cuda(gpu.index)


def _die_with_parent() -> None:
    """Ctrl-C is the parent's to handle; if the parent is gone, so is the build."""
    libc = ctypes.CDLL(None)
    libc.signal(_SIGINT, ctypes.c_void_p(_SIG_IGN))
    libc.prctl(_PDEATHSIG, _SIGKILL)
