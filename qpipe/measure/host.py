"""The machine that measures: one measurement at a time, and the conditions it ran under."""

from __future__ import annotations

import fcntl
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qpipe.errors import EngineError, Interrupted
from qpipe.measure.cpu import Cpu, read_cpu

LOCK = Path("/tmp/qpipe-measure.lock")  # the same file for all users and TMPDIRs of a host, else it excludes nobody
_POLL_S = 0.2


@contextmanager
def measuring(say: Callable[[str], None], path: Path = LOCK, *, stop: threading.Event | None = None) -> Iterator[float]:
    """Hold the host's measuring lock; gives the seconds that were waited for it.

    The kernel frees the lock when its holder dies, however it dies. `say` is called once when another measurement
    has to be waited for.

    Raises:
        EngineError: the lock file cannot be opened.
        Interrupted: `stop` was set while another measurement was waited for.
    """
    file = _open(path)
    begin = time.monotonic()
    told = False
    try:
        while not _try_lock(file):
            if not told:
                say(f"waiting: {_holder(file)} measures on this host (lock {path})")
                told = True
            if stop is not None and stop.is_set():
                raise Interrupted("interrupted while waiting to measure", hint="run the same command again")
            time.sleep(_POLL_S)
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield time.monotonic() - begin
    finally:
        os.close(file)


def _open(path: Path) -> int:
    # Without O_CREAT first: `fs.protected_regular` forbids it for a file of another user in a sticky folder.
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise EngineError(f"the measuring lock {path} cannot be opened: {error.strerror}", hint=_LOCK_HINT) from error
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        os.fchmod(file, 0o666)  # against the umask: other users must be able to wait for it
    except OSError as error:
        raise EngineError(f"the measuring lock {path} cannot be made: {error.strerror}", hint=_LOCK_HINT) from error
    return file


_LOCK_HINT = "it must be a plain file that every user may read and write"


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: int) -> str:
    text = os.pread(file, 32, 0).decode(errors="replace").strip()
    return f"process {text}" if text.isdigit() else "another process"


def conditions(isa: tuple[str, ...] = (), cpu: Cpu | None = None) -> tuple[tuple[str, str], ...]:
    """What shapes a timing on this machine now: load, governor, processor, virtual machine, kernel.

    `isa` is what the target asks for; flags of this machine beyond it are named, since a runtime that chooses its
    kernels at run time uses them.
    """
    cpu = cpu or read_cpu()
    beyond = beyond_target(cpu, isa)
    found = [
        ("cpu", cpu.model),
        ("arch", cpu.arch),
        ("isa", " ".join(cpu.isa)),
        ("cpus", str(cpu.count)),
        ("load_average", " ".join(f"{load:.2f}" for load in os.getloadavg())),
        ("governor", governor()),
        ("virtual_machine", "yes" if "hypervisor" in cpu.flags else "not reported"),
        ("kernel", platform.release()),
    ]
    if beyond:
        found.append(("isa_beyond_target", f"this CPU also has {' '.join(beyond)}: kernels are chosen at run time"))
    return tuple(found)


def beyond_target(cpu: Cpu, isa: tuple[str, ...]) -> tuple[str, ...]:
    """Integer instruction sets of this CPU that a target naming `isa` does not speak of; none where it names none."""
    integer = ("avx_vnni", "avx_vnni_int8", "avx512_vnni", "amx_int8", "i8mm")
    if not isa or cpu.named(isa).flags & set(integer):
        return ()
    return tuple(flag for flag in integer if flag in cpu.flags)


def governor(cpus: Path = Path("/sys/devices/system/cpu")) -> str:
    """Frequency governor of the processors, or `not reported` (virtual machines have none)."""
    found: set[str] = set()
    for file in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        with suppress(OSError):  # EBUSY of a core that is switched off
            found.add(file.read_text().strip())
    return " + ".join(sorted(found)) or "not reported"
