"""The program that children are forked from: `python seed.py SOCKET_FD ALIVE_FD`.

It imports what every child needs, once, and then does nothing but fork and reap. It has no thread of Python's, opens
no session and loads no plugin, so that a child begins as clean as a fresh interpreter: onnxruntime starts a thread when
it is imported, and so is left to the children.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys

MODULES = (
    "numpy.random",
    "onnx",
    "onnx_ir",
    "qpipe.execute.work.cell",
    "qpipe.execute.work.trial",
    "qpipe.prepare.stages",
    "qpipe.quant.calibration.observed",
    "qpipe.quant.corrections.bias",
    "qpipe.quant.corrections.smooth",
    "qpipe.quant.diagnosis.choices",
    "qpipe.quant.diagnosis.clipping",
    "qpipe.quant.fold",
)
LATER = ("sympy", "onnx_ir._symbolic_shapes")
"""onnx_ir adds and multiplies symbolic sizes with sympy, which takes as long to import as half of the rest together."""
MESSAGE_BYTES = 1 << 16


def main(channel: int, alive: int) -> None:
    """Import, then serve until the channel is closed. The first message has the import path and the modules."""
    with socket.socket(fileno=channel) as orders:
        first = json.loads(orders.recv(MESSAGE_BYTES))
        sys.path[:] = first["path"]
        from qpipe.execute.children.child import die_with_parent
        from qpipe.execute.children.later import postponed

        die_with_parent(alive)
        gc.disable()  # modules are no garbage
        with postponed(*LATER):
            for name in first["modules"]:
                importlib.import_module(name)
        gc.freeze()  # a child's collector leaves these pages shared
        gc.enable()
        serve(orders, alive)


def serve(orders: socket.socket, alive: int) -> None:
    """Three descriptors (log, progress, alive) and a work folder: fork a child. A process id alone: reap it."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, 3)
        if not text:
            return
        orders.send(_fork(text, tuple(descriptors), orders, alive) if descriptors else _reap(text))


def _fork(text: bytes, descriptors: tuple[int, ...], orders: socket.socket, alive: int) -> bytes:
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        _live(text.decode(), descriptors, (orders.detach(), alive), own)
    for descriptor in descriptors:
        os.close(descriptor)
    return str(pid).encode()


def _reap(text: bytes) -> bytes:
    _, status, usage = os.wait4(int(text), 0)
    return json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime]).encode()


def _live(workdir: str, descriptors: tuple[int, ...], others: tuple[int, ...], parent: int) -> None:
    """The child's whole life; it never returns to the loop above."""
    try:
        log, progress, alive = descriptors
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        for descriptor in (log, *others):
            os.close(descriptor)
        from qpipe.execute.children.child import die_with_parent, work

        die_with_parent(alive)
        if os.getppid() == parent:  # else it died before we were listening
            _own_luck()
            work(workdir, progress)
    except BaseException:  # noqa: BLE001  (the log gets it; the parent sees a child without a result)
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


def _own_luck() -> None:
    """Random numbers that nobody seeded differ between children; Python sees to its own."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)
