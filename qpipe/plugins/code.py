"""Digests of the code of plugins, so that a cache never outlives the code that filled it."""

from __future__ import annotations

import hashlib
import sys
from functools import cache, partial
from pathlib import Path
from types import ModuleType

PYTHON = "*.py"
SOURCES = (PYTHON, "*.so")


@cache
def code_digest(*modules: str, sources: tuple[str, ...] = SOURCES) -> str:
    """SHA-256 over the files of modules that are imported, 16 hexadecimal characters; of a package, over all of it.

    A module of another library than the first one is taken alone: a plugin may use a function of a large library.
    """
    files = {path for module in modules for path in _files(module, sources, whole=_top(module) == _top(modules[0]))}
    lines = sorted(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]  # by name: paths differ between machines


def module_of(value: object) -> str:
    """Where a function, a partial of one, or an object's class is defined."""
    while isinstance(value, partial):
        value = value.func
    return str(getattr(value, "__module__", None) or type(value).__module__)


def is_ours(value: object) -> bool:
    """Whether it is the core's: an error in there is a bug of ours and keeps its traceback."""
    return _top(module_of(value)) == "qpipe"


def _files(module: str, sources: tuple[str, ...], *, whole: bool) -> list[Path]:
    top = sys.modules.get(_top(module))
    if whole and top is not None and top.__name__ != "qpipe" and _is_package(top):
        root = Path(str(top.__file__)).parent
        return [path for pattern in sources for path in root.rglob(pattern)]
    file = getattr(sys.modules.get(module), "__file__", None)
    return [Path(file)] if file and Path(file).is_file() else []


def _is_package(module: ModuleType) -> bool:
    """Whether it has a folder of its own: one that several distributions share has no file."""
    return hasattr(module, "__path__") and bool(module.__file__)


def _top(module: str) -> str:
    return module.partition(".")[0]
