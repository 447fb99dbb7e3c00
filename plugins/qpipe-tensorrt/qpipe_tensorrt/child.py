"""Starts the builder in a process of its own, with a fixed memory layout.

The builder orders some of its symbols by their address: with address randomization every build of one model has other
bytes (the same kernels under other names). Without it they are the same, as long as environment and paths are too: so
the process gets few variables, and reads the model through a link in its working folder. A container may forbid a
fixed layout; then the bytes vary and `randomized` says so. In networks of ResNet-50's size some names vary all the
same, with the turns that the builder's threads take: one CPU and a first-in-first-out schedule fix these too, where
the system grants them.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from qpipe import errors
from qpipe_tensorrt.job import Job, Refusal, Reply, unpacked
from qpipe_tensorrt.order import Order, job_of
from qpipe_tensorrt.worker import ENGINE_FILE, REPLY, REQUEST

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress
    from qpipe_tensorrt.options import Options

_FIXED_LAYOUT = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)
_ASK = 0xFFFFFFFF
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
    job = job_of(order, f"{_MODEL_FOLDER}/{order.graph.name}")
    link = folder / _MODEL_FOLDER
    link.symlink_to(order.graph.parent)  # external data lies beside the model
    try:
        code = _run(job, folder, progress)
        if code == -signal.SIGXCPU and job.in_turn:  # a thread that waits without giving way: let the system share out
            code = _run(job._replace(in_turn=False), folder, progress)
    except BaseException:
        for made in (ENGINE_FILE, REPLY):  # it may have been as fast as whoever stopped it
            (folder / made).unlink(missing_ok=True)
        raise
    finally:
        link.unlink()
        (folder / REQUEST).unlink(missing_ok=True)
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


def _run(job: Job, folder: Path, progress: Progress) -> int:
    """Start the builder in `folder` and follow it to its end; its exit status."""
    (folder / REQUEST).write_bytes(marshal.dumps(tuple(job)))
    command = [sys.executable, "-P", "-S", "-c", _WORK]  # `site` would only find again what PYTHONPATH says
    with _fixed_layout():
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    with process:
        try:
            _follow(cast("IO[bytes]", process.stdout), progress)
            return process.wait()
        except BaseException:
            process.kill()
            raise


@contextmanager
def _fixed_layout() -> Iterator[bool]:
    """Programs that this thread starts get a fixed memory layout; whether the system allows it.

    Source: personality(2): kept by fork and exec, and each thread has its own.
    """
    personality = ctypes.CDLL(None).personality
    personality.argtypes = (ctypes.c_ulong,)
    before = personality(_ASK)
    fixed = before != -1 and personality(before | _FIXED_LAYOUT) != -1
    try:
        yield fixed
    finally:
        if fixed:
            personality(before)


def _environment() -> dict[str, str]:
    """What the builder may need and nothing else: its bytes vary with the size of the environment."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)}
    found = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100  (an import path is text)
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONPATH": found}


def _outcome(folder: Path, code: int) -> Reply:
    answer = folder / REPLY
    if code != 0 or not answer.is_file():
        raise errors.BuildError(f"the TensorRT builder died ({_cause(code)})", hint="its last words are in the log")
    outcome = unpacked(answer.read_bytes())
    answer.unlink()
    if isinstance(outcome, Refusal):
        kind = cast("type[errors.QpipeError]", getattr(errors, outcome.error))
        raise kind(outcome.message, hint=outcome.hint)
    return outcome


def randomized() -> bool:
    """Whether this system refuses a fixed memory layout: builds of one model then differ in their symbol names."""
    with _fixed_layout() as fixed:
        return not fixed


def _follow(lines: IO[bytes], progress: Progress) -> None:
    for line in lines:
        first, _, name = line.decode().rstrip().partition(" ")
        if name:
            progress.step(name, total=None if first == "-" else int(first))
        else:
            progress.advance(int(first))


def _cause(code: int) -> str:
    return f"{signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
