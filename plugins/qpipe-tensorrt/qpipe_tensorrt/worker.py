"""The process that calls the vendor's builder: one build, then it ends.

Request and reply are pickles between two halves of this plugin; progress goes to stdout as lines of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qpipe.errors import QpipeError, UnavailableError
from qpipe_tensorrt.api import load_product
from qpipe_tensorrt.builder import Order, Plan, build_plan
from qpipe_tensorrt.cuda import Cuda
from qpipe_tensorrt.driver import find_gpus, serving

if TYPE_CHECKING:
    from qpipe_tensorrt.demands import Demand
    from qpipe_tensorrt.options import Options

ENGINE_FILE = "engine.trt"
REQUEST = "order.pickle"
REPLY = "reply.pickle"
_PDEATHSIG = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one build tells; the engine's bytes lie in the folder of the request."""

    demands: tuple[Demand, ...]
    dump: str
    warnings: tuple[str, ...]
    profiles: int
    version: str
    seconds: float
    """Wall time of parsing and building, without the start of the process."""
    cpu_seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error of ours, to be raised by the other half."""

    error: type[QpipeError]
    message: str
    hint: str


class Lines:
    """Progress as lines of JSON on a stream of its own: the vendor may write to stdout."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def step(self, name: str, *, total: int | None = None) -> None:
        """A new step begins."""
        os.write(self._descriptor, f"{json.dumps([name, total])}\n".encode())

    def advance(self, amount: int = 1) -> None:
        """Part of the current step is done; 0 would tell nothing."""
        if amount:
            os.write(self._descriptor, f"{amount}\n".encode())


def main() -> None:
    """Build what the order in the working folder says; engine and reply are left there."""
    _die_with_parent()
    lines = Lines(os.dup(1))
    os.dup2(2, 1)
    order = cast("Order", pickle.loads(Path(REQUEST).read_bytes()))
    try:
        outcome: Reply | Refusal = _build(order, lines)
    except QpipeError as error:
        outcome = Refusal(error=type(error), message=error.message, hint=error.hint)
    Path(REPLY).write_bytes(pickle.dumps(outcome))


def _build(order: Order, lines: Lines) -> Reply:
    gpu = _occupy_gpu(order.options)
    vendor = load_product(order.options.vendor)
    start, cpu_start = time.perf_counter(), time.process_time()
    plan: Plan = build_plan(vendor, order, lines)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    if gpu is not None:
        gpu.close()
    Path(ENGINE_FILE).write_bytes(memoryview(plan.data))  # type: ignore[arg-type]  # the vendor's memory is a buffer
    return Reply(
        demands=plan.demands,
        dump=plan.dump,
        warnings=plan.warnings,
        profiles=plan.profiles,
        version=vendor.__version__,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        peak_rss_bytes=_peak_rss_bytes(),
    )


def _peak_rss_bytes() -> int:
    """Peak of this program alone: `ru_maxrss` would count the process that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _occupy_gpu(options: Options) -> Cuda | None:
    """Make the target's GPU the current one where the builder measures on it; not run here: no NVIDIA driver.

    Raises:
        UnavailableError: it is not here.
    """
    if options.vendor.builds_without_gpu:
        return None
    gpu = serving(find_gpus(), options.capabilities)
    if gpu is None:
        raise UnavailableError(f"no GPU of compute capability {options.compute_capability} to build on")
    return Cuda(gpu.index)


def _die_with_parent() -> None:
    """Ctrl-C is the parent's to handle; if the parent is gone, so is the build."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
