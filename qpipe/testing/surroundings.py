"""What a backend leaves as it found it: the process that calls it, and the folders beside its work."""

from __future__ import annotations

import locale
import logging
import os
import random
import signal
import site
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from types import FrameType
from unittest.mock import patch

import numpy as np

from qpipe.home import home
from qpipe.testing.cases import made

_CURE = {
    "home": "put caches into `workdir` or `qpipe.home.home()`",
    "temporary": "remove it, or write to `workdir`",
    "working": "give your tools full paths in `workdir`",
}


@contextmanager
def left_as_found(what: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Home (its cache), temporary and working folder are new ones, and what is often set is set to something unusual.

    So a second call tells what the first did already: only what a library does when it is imported is not told.

    Args:
        what: the call, for the message.
        environment: the environment before the first call.

    Raises:
        AssertionError: something was changed, left behind or left running.
    """
    with tempfile.TemporaryDirectory(prefix="qpipe-") as folder, ExitStack() as after:
        folders = {name: made(Path(folder, name)) for name in _CURE}
        _link_home(folders["home"])
        _set_unusual(after, environment, folders)
        before, names, busy = _process(), _files(folders), left_running()
        yield
        found = _process()
        changed = sorted(name for name in before.keys() | found.keys() if before.get(name) != found.get(name))
        left = sorted(_files(folders) - names)
        running = sorted(left_running() - busy)
    told = f"{what} changes {', '.join(changed)} of the process that calls it: put back what your tools set"
    assert not changed, told
    assert not left, f"{what} leaves {left[0][1]} in the {left[0][0]} folder: {_CURE[left[0][0]]}"
    assert not running, f"{what} leaves {', '.join(running)} running: end it, and wait for it"


def bytes_below(folder: Path, without: Path | None = None) -> dict[str, bytes]:
    """Every file below a folder with its bytes; none below `without`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if without is None or not path.is_relative_to(without)}


def left_running() -> set[str]:
    """Processes that this one started and that still run, and threads that would keep it from ending."""
    threads = {f"thread {one.name}" for one in threading.enumerate() if not one.daemon}
    children = (number for path in Path("/proc/self/task").glob("*/children") for number in path.read_text().split())
    return threads | {f"process {Path('/proc', number, 'comm').read_text().strip()} ({number})" for number in children}


def _process() -> dict[str, object]:
    """What belongs to the whole process, by the name that a message gives it."""
    return {
        "the working folder": Path.cwd(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "warnings.filters": tuple(warnings.filters),
        "np.seterr": np.geterr(),
        "np.random's state": str(np.random.get_state(legacy=False)),
        "random's state": random.getstate(),
        "the root logger's level": logging.root.level,
        "sys.path": tuple(sys.path),
        "sys.stdout": sys.stdout,
        "sys.stderr": sys.stderr,
        **{f"the handler of {one.name}": signal.getsignal(one) for one in signal.Signals},
        **{f"environment variable {name}": value for name, value in os.environ.items()},
    }


def _set_unusual(after: ExitStack, environment: Mapping[str, str], folders: Mapping[str, Path]) -> None:
    """What a backend might set has another value than it would set, until `after` is closed."""
    here = {
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "QPIPE_HOME": str(home()),
        "PYTHONUSERBASE": site.getuserbase(),
    }
    kept = {name: value for name, value in environment.items() if not name.startswith(("XDG_", "PYTEST_"))}
    ours = {name: value for name, value in os.environ.items() if name.startswith("PYTEST_")}
    after.enter_context(patch.dict(os.environ, kept | ours | here, clear=True))
    after.enter_context(patch.object(tempfile, "tempdir", str(folders["temporary"])))
    after.enter_context(chdir(folders["working"]))
    after.enter_context(patch.object(sys, "path", list(sys.path)))
    after.enter_context(np.errstate(divide="print", over="print", invalid="print"))
    after.enter_context(warnings.catch_warnings())
    warnings.simplefilter("default", _Unusual)
    after.callback(locale.setlocale, locale.LC_ALL, locale.setlocale(locale.LC_ALL))
    locale.setlocale(locale.LC_ALL, "C")
    after.callback(np.random.set_state, np.random.get_state())
    np.random.seed(7919)
    after.callback(random.setstate, random.getstate())
    random.seed(7919)
    after.callback(logging.root.setLevel, logging.root.level)
    logging.root.setLevel(logging.WARNING + 1)
    for one in (signal.SIGINT, signal.SIGTERM):
        after.callback(signal.signal, one, signal.getsignal(one))
        signal.signal(one, _stop)


class _Unusual(Warning):
    """Nobody gives it."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _link_home(folder: Path) -> None:
    """Licences and keys of a vendor's tools are found, no cache is; what is written into older files is not seen."""
    real = Path("~").expanduser()
    for path in real.iterdir() if os.access(real, os.R_OK) else ():
        if path.name != ".cache":
            (folder / path.name).symlink_to(path)


def _files(folders: Mapping[str, Path]) -> set[tuple[str, str]]:
    """What lies in each folder, links not followed."""
    return {(name, str(path.relative_to(folder))) for name, folder in folders.items() for path in folder.rglob("*")}
