"""What guarded children do in the tests. Imported by name in the child."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from qpipe.errors import BuildError


def echo(request, progress):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return request[::-1]


def facts(request, progress):
    import json
    import resource
    import tempfile

    return json.dumps(
        {
            "temporary": tempfile.gettempdir(),
            "cwd": str(Path.cwd()),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "session": os.getsid(0) == os.getpid(),
            "faulthandler": os.environ["PYTHONFAULTHANDLER"],
            "modules": sorted({"numpy", "pydantic", "onnx", "asyncio", "psutil", "inspect"} & set(sys.modules)),
            "open": (numbers := [int(path.name) for path in Path("/proc/self/fd").iterdir()]),
            "inherited": [one for one in numbers if one > 2 and is_inherited(one)],
        }
    )


def is_inherited(descriptor):
    """Whether a program that is started would have it; what is closed already is not."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def parent(request, progress):
    return str(os.getppid())


def stop_parent(request, progress):
    os.kill(os.getppid(), signal.SIGSTOP)
    return request


def luck(request, progress):
    import random

    import numpy as np

    return f"{random.random()} {np.random.random()}"


def big(request, progress):
    return "x" * int(request)


def segfault(request, progress):
    print("about to crash")
    ctypes.string_at(0)
    return ""


def abort(request, progress):
    os.abort()


def leave(request, progress):
    os._exit(int(request))


def exit_politely(request, progress):
    sys.exit(3)


def refuse(request, progress):
    raise BuildError("node conv1 is too wide", hint="make it narrower")


def stumble(request, progress):
    raise TypeError("not like this")


def wrong_type(request, progress):
    return 1


def ask_too_much(request, progress):
    bytearray(1 << 60)
    return ""


def crash_at_exit(request, progress):
    import atexit

    atexit.register(os.abort)
    return "done"


def hang(request, progress):
    """Ignores what can be ignored, as does its grandchild; the ids of both are written to the file `request`."""
    for number in (signal.SIGTERM, signal.SIGIO):  # SIGIO: what closing a pipe sends unless told otherwise
        signal.signal(number, signal.SIG_IGN)
    code = "import time; print(flush=True); time.sleep(300)"  # what is ignored is inherited
    grandchild = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert grandchild.stdout is not None
    grandchild.stdout.readline()
    part = Path(request + ".part")
    part.write_text(f"{os.getpid()} {grandchild.pid}")
    part.rename(request)
    progress.step("hanging")
    time.sleep(300)
    return ""


def hang_with_the_lock(request, progress):
    """As a vendor library that never lets the interpreter go."""
    Path(request).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(300)
    return ""


def orphan(request, progress):
    """Returns while a grandchild goes on."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    grandchild.returncode = 0  # no warning about it
    return str(grandchild.pid)


def eat(request, progress):
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)) * 16)
        time.sleep(0.005)


def eat_by_grandchildren(request, progress):
    code = "import time; hoard = b'x' * (120 << 20); print(flush=True); time.sleep(300)"
    children = []
    for _ in range(4):
        children.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
        children[-1].stdout.readline()
    time.sleep(300)
    return ""


def peak(request, progress):
    hoard = b"x" * (200 << 20)
    del hoard
    return ""


def count(request, progress):
    for name in ("load", "run"):
        progress.step(name, total=1000)
        for _ in range(1000):
            progress.advance()
    progress.step("write")
    return ""


def spin(request, progress):
    end = time.process_time() + float(request)
    while time.process_time() < end:
        pass
    return ""


def many_threads(request, progress):
    progress.step("threads")
    threads = [threading.Thread(target=lambda: [progress.advance() for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ""


def open_too_many(request, progress):
    import errno

    raise OSError(errno.EMFILE, "Too many open files")
