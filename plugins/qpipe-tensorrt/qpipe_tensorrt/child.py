"""Starts the builder in a process of its own, with a fixed memory layout.

The builder orders some of its symbols by their address: with address randomization every build of one model has other
bytes (the same kernels under other names), without it they are the same. A container may forbid to turn it off; then
the bytes vary and `randomized` says so.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, cast

from qpipe.errors import BuildError
from qpipe_tensorrt.worker import Refusal, Reply

if TYPE_CHECKING:
    from pathlib import Path

    from qpipe.plugins.backend import Progress
    from qpipe_tensorrt.builder import Order

_FIXED_LAYOUT = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)
_START = f"import ctypes, os, sys; ctypes.CDLL(None).personality({_FIXED_LAYOUT}); os.execv(sys.argv[1], sys.argv[1:])"

_WORK = "from qpipe_tensorrt.worker import main; main()"


def run_build(order: Order, folder: Path, progress: Progress) -> Reply:
    """Build once; the engine lies in `folder` afterwards. Whatever `progress` raises ends the builder first.

    Raises:
        BuildError: TensorRT refused, or its process died.
    """
    command = [sys.executable, "-I", "-S", "-c", _START, sys.executable, "-c", _WORK]
    found = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100  (an import path is text)
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": found}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            _send(process, order, folder)
            _follow(cast("IO[bytes]", process.stdout), progress)
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    answer = folder / "reply.pickle"
    if code != 0 or not answer.is_file():
        raise BuildError(
            f"the TensorRT builder died ({_cause(code)})", hint="its last words stand above, or in the log"
        )
    outcome = cast("Reply | Refusal", pickle.loads(answer.read_bytes()))
    answer.unlink()
    if isinstance(outcome, Refusal):
        raise outcome.error(outcome.message, hint=outcome.hint)
    return outcome


def randomized() -> bool:
    """Whether this system refuses a fixed memory layout: builds of one model then differ in their symbol names."""
    probe = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).personality({_FIXED_LAYOUT}) == -1)"
    return subprocess.run([sys.executable, "-I", "-S", "-c", probe], check=False).returncode != 0


def _send(process: subprocess.Popen[bytes], order: Order, folder: Path) -> None:
    """A builder that dies at once leaves a broken pipe; its exit code says why."""
    stdin = cast("IO[bytes]", process.stdin)
    try:
        stdin.write(pickle.dumps((order, folder)))
        stdin.close()
    except BrokenPipeError:
        process.wait()


def _follow(lines: IO[bytes], progress: Progress) -> None:
    for line in lines:
        told = json.loads(line)
        if isinstance(told, int):
            progress.advance(told)
        else:
            progress.step(told[0], total=told[1])


def _cause(code: int) -> str:
    return f"{signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
