"""Children that begin at once: forked from one interpreter that has imported what each of them needs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from qpipe.execute.children import group
from qpipe.execute.children.seed import MESSAGE_BYTES, MODULES
from qpipe.execute.children.starting import start_program

PATIENCE_S = 60.0
"""How long an answer may take: that to the first order waits for all imports."""
GONE = (-9, 0.0)
"""How a child ends whose seed was killed: the kernel kills it too."""


class Nursery:
    """One seed (`seed.py`) while it is open, and the way to ask it for children, from any thread.

    A child keeps working folder, environment and import path as they were when the nursery was opened. Where there is
    no seed, because the nursery is closed or its seed was killed, nothing is forked, and children are to be spawned.
    """

    def __init__(self, modules: tuple[str, ...] = MODULES) -> None:
        self._modules = modules
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: socket.socket | None = None
        self._ends = ExitStack()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A seed for this block. It imports beside whatever is done here: the first child waits for it, nobody else.

        The calling thread stays in the block, since the seed dies with the thread that started it. A block within it is
        of the same seed: it is begun before there is work, or lasts for many runs.
        """
        if self._orders is not None:
            yield
            return
        try:
            self.end()  # of one that was killed
            self._begin()
            yield
        finally:
            self.end()

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        its_alive, alive = os.pipe()
        self._ends.callback(os.close, alive)
        self._ends.enter_context(ours)
        self._ends.callback(os.close, its_alive)
        with theirs, open(os.devnull, "wb") as nowhere:  # noqa: PTH123  (a device)
            self._process = start_program("seed.py", descriptors=(theirs.fileno(), its_alive), output=nowhere.fileno())
        ours.settimeout(PATIENCE_S)
        path = [path or os.getcwd() for path in sys.path]  # noqa: PTH109  (a str)
        ours.send(json.dumps({"path": path, "modules": self._modules}).encode())
        self._orders = ours

    def fork(self, workdir: Path, progress: int, alive: int) -> Forked | None:
        """A child for this work folder, in a session of its own, its output in `log.txt`; None without a seed."""
        with (workdir / "log.txt").open("wb") as log:
            answer = self._ask(str(workdir).encode(), (log.fileno(), progress, alive))
        return Forked(int(answer), self) if answer else None

    def reap(self, pid: int) -> tuple[int, float]:
        """Exit status and CPU seconds of a child that has ended or was killed."""
        answer = self._ask(str(pid).encode())
        if not answer:
            return GONE
        status, cpu_seconds = json.loads(answer)
        return int(status), float(cpu_seconds)

    def _ask(self, text: bytes, descriptors: tuple[int, ...] = ()) -> bytes:
        """The seed's answer; nothing where it is gone."""
        with self._lock:
            if self._orders is None:
                return b""
            answer = b""
            with suppress(OSError):
                socket.send_fds(self._orders, [text], list(descriptors))
                answer = self._orders.recv(MESSAGE_BYTES)
            if not answer:
                self._orders = None
                self._kill()
            return answer

    def end(self) -> None:
        """No seed from now on, until the nursery is opened again."""
        with self._lock:
            self._orders = None
            self._kill()
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._ends.close()

    def _kill(self) -> None:
        """It has nothing to finish: whoever is still its child dies with it."""
        if self._process is not None and self._process.returncode is None:
            group.kill(self._process.pid)


class Forked:
    """A child of the seed. It stays a zombie, and its id its own, until the seed is told to reap it."""

    def __init__(self, pid: int, nursery: Nursery) -> None:
        self.pid = pid
        self._nursery = nursery

    def has_ended(self) -> bool:
        """Whether it waits to be reaped, or went away with its seed."""
        return group.state(self.pid) in {"Z", "X", ""}

    def reap(self) -> tuple[int, float]:
        """Exit status and CPU seconds."""
        return self._nursery.reap(self.pid)
