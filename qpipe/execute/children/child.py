"""The program of a guarded child: `python child.py WORKDIR PROGRESS_FD ALIVE_FD`.

Only the standard library's lightest modules are imported before the entry: a child costs little more than an
interpreter. The order matters: first make sure that this process dies with its parent.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""Source: linux/prctl.h."""


def die_with_parent(alive: int) -> None:
    """Let the kernel kill this process, and its whole group, when the parent dies.

    PDEATHSIG covers this process alone. For the group, the parent holds the write end of the pipe `alive`: when it is
    closed, the kernel sends the signal of `F_SETSIG` to the owner, which is the group. No thread and no handler of
    ours is needed, so that a vendor library that hangs with the interpreter's lock dies as well.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.set_inheritable(alive, False)
    fcntl.fcntl(alive, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)
    poller = select.poll()
    poller.register(alive, select.POLLIN)
    if poller.poll(0):  # closed before we were listening
        os.killpg(0, signal.SIGKILL)


def main(workdir: str, progress: int, alive: int) -> None:
    """Make sure of our own end, then work."""
    die_with_parent(alive)
    work(workdir, progress)


def work(workdir: str, progress: int) -> None:
    """Run the entry named in `request.json` and write `result.json`.

    Leaves through `os._exit`: the result is complete then, and what a vendor library does while the interpreter
    is torn down is no part of the work. What was printed is out already: it runs with `-u`.
    """
    os.set_inheritable(progress, False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _keep_temporary_files(workdir)
    import json

    with open(os.path.join(workdir, "request.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123  (pathlib costs 5 ms)
        job = json.load(file)
    sys.path[:] = job["path"]
    answer = json.dumps(_answer(job["entry"], job["request"], progress))
    name = os.path.join(workdir, "result.json")  # noqa: PTH118  (as above)
    with open(name + ".part", "w", encoding="utf-8") as file:  # noqa: PTH123  (as above)
        file.write(answer)
    os.replace(name + ".part", name)  # noqa: PTH105  (as above)
    os._exit(0)


def _keep_temporary_files(workdir: str) -> None:
    """A killed child removes none of its temporary files, which may be whole models: they go with its folder."""
    os.environ["TMPDIR"] = os.path.abspath(workdir)  # noqa: PTH100  (pathlib costs 5 ms)
    if "tempfile" in sys.modules:  # forked: it may know another place
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]  # of any module


def _answer(entry: str, request: str, descriptor: int) -> dict[str, object]:
    """`{"result": text}`, or `{"error": {type, message, hint, code}}`; the traceback goes to the log."""
    from qpipe.execute.children.group import peak_resident_bytes
    from qpipe.execute.children.progress import PipeProgress

    progress = PipeProgress(descriptor)
    try:
        answer: dict[str, object] = {"result": _call(entry, request, progress)}
    except BaseException as error:  # noqa: BLE001  (also SystemExit: the parent gets whatever ended the work)
        answer = {"error": _describe(error)}
    progress.flush()
    return answer | {"peak_rss_bytes": peak_resident_bytes(os.getpid())}


def _call(entry: str, request: str, progress: object) -> str:
    import importlib

    module, _, name = entry.partition(":")
    result = getattr(importlib.import_module(module), name)(request, progress)
    if not isinstance(result, str):
        raise TypeError(f"{entry} returned {type(result).__name__}, not str")
    return result


def _describe(error: BaseException) -> dict[str, object]:
    from qpipe.errors import QpipeError

    name = type(error).__name__
    if isinstance(error, QpipeError):
        return {"type": name, "message": error.message, "hint": error.hint, "code": error.code, "lasts": error.lasts}
    import traceback

    traceback.print_exception(error)
    if isinstance(error, MemoryError):  # numpy raises one of its own
        message = f"MemoryError: {str(error) or 'more than this machine can give'}"
        return {"type": "MemoryError", "message": message, "hint": "use a smaller batch", "code": 5}
    from qpipe.allowance import exhausted

    hint = exhausted(error)
    return {"type": name, "message": f"{name}: {error}", "hint": hint, "code": 5 if hint else 1}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
