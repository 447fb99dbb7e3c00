"""Starts the builder in a process of its own, with a fixed memory layout.

The builder orders some of its symbols by their address: with address randomization every build of one model has other
bytes (the same kernels under other names). Without it they are the same, as long as environment and paths are too: so
the process gets few variables, and reads the model through a link in its working folder. A container may forbid a
fixed layout; then the bytes vary and `randomized` says so. In networks of ResNet-50's size some names vary all the
same, with the turns that the builder's threads take: one CPU and a first-in-first-out schedule fix these too, where
the system grants them.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from qpipe.errors import BuildError
from qpipe_tensorrt.worker import REPLY, REQUEST, Refusal, Reply

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress
    from qpipe_tensorrt.builder import Order
    from qpipe_tensorrt.options import Options

_FIXED_LAYOUT = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)
_EXEC = "os.execv(sys.argv[1], sys.argv[1:])"
_START = f"import ctypes, os, sys; ctypes.CDLL(None).personality({_FIXED_LAYOUT}); {_EXEC}"
_IN_TURN = "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
_ONE_CPU = "os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})"
_START_IN_TURN = _START.replace(_EXEC, f"{_ONE_CPU}; {_IN_TURN}; {_EXEC}")

_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
_KEPT_FAMILIES = ("LD_", "CUDA", "NVIDIA", "NV_", "TRT", "TENSORRT")
_MODEL_FOLDER = "in"
_WORK = "from qpipe_tensorrt.worker import main; main()"
_INSPECT = "import sys; from qpipe_tensorrt.inspection import main; main(*sys.argv[1:])"
_INSPECT_LIMIT_S = 120


def run_build(order: Order, folder: Path, progress: Progress) -> Reply:
    """Build once; the engine lies in `folder` afterwards. Whatever `progress` raises ends the builder first.

    Raises:
        BuildError: TensorRT refused, or its process died.
    """
    link = folder / _MODEL_FOLDER
    link.symlink_to(order.graph.parent)  # external data lies beside the model
    (folder / REQUEST).write_bytes(pickle.dumps(replace(order, graph=Path(_MODEL_FOLDER, order.graph.name))))
    in_turn = order.options.reproducible and granted()
    try:
        code = _run(folder, progress, _START_IN_TURN if in_turn else _START)
    finally:
        link.unlink()
        (folder / REQUEST).unlink()
    return _outcome(folder, code)


def run_inspection(engine: Path, options: Options) -> str:
    """Have the inspector's account written beside an engine; why there is none, or an empty text."""
    command = [sys.executable, "-P", "-c", _INSPECT, str(engine), options.product, *options.capabilities]
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, check=False, timeout=_INSPECT_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return f"the engine inspector was stopped after {_INSPECT_LIMIT_S} s"
    if done.returncode == 0:
        return ""
    last = done.stderr.strip().splitlines()[-1:] or [_cause(done.returncode)]
    return f"the engine inspector gave nothing: {last[0]}"


def _run(folder: Path, progress: Progress, start: str) -> int:
    """Start the builder in `folder` and follow it to its end; its exit status."""
    command = [sys.executable, "-I", "-S", "-c", start, sys.executable, "-P", "-c", _WORK]
    with subprocess.Popen(
        command, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        try:
            _follow(cast("IO[bytes]", process.stdout), progress)
            return process.wait()
        except BaseException:
            process.kill()
            raise


def _environment() -> dict[str, str]:
    """What the builder may need and nothing else: its bytes vary with the size of the environment."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)}
    found = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100  (an import path is text)
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONPATH": found}


def _outcome(folder: Path, code: int) -> Reply:
    answer = folder / REPLY
    if code != 0 or not answer.is_file():
        raise BuildError(f"the TensorRT builder died ({_cause(code)})", hint="its last words are in the log")
    outcome = cast("Reply | Refusal", pickle.loads(answer.read_bytes()))
    answer.unlink()
    if isinstance(outcome, Refusal):
        raise outcome.error(outcome.message, hint=outcome.hint)
    return outcome


def randomized() -> bool:
    """Whether this system refuses a fixed memory layout: builds of one model then differ in their symbol names."""
    probe = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).personality({_FIXED_LAYOUT}) == -1)"
    return subprocess.run([sys.executable, "-I", "-S", "-c", probe], check=False).returncode != 0


def granted() -> bool:
    """Whether this system grants a first-in-first-out schedule (CAP_SYS_NICE, or a limit of real-time priority)."""
    return (
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", f"import os; {_IN_TURN}"], check=False, stderr=subprocess.DEVNULL
        ).returncode
        == 0
    )


def _follow(lines: IO[bytes], progress: Progress) -> None:
    for line in lines:
        told = json.loads(line)
        if isinstance(told, int):
            progress.advance(told)
        else:
            progress.step(told[0], total=told[1])


def _cause(code: int) -> str:
    return f"{signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
