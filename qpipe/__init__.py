"""qpipe: from a trained model to a promoted engine on every piece of hardware, with evidence you can sign."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.version import __version__

if TYPE_CHECKING:
    from qpipe.api import load, run, step

__all__ = ["__version__", "load", "run", "step"]


def __getattr__(name: str) -> object:
    """`run`, `step` and `load` at first use: `import qpipe` alone stays light."""
    if name in ("load", "run", "step"):
        from importlib import import_module

        found: object = getattr(import_module("qpipe.api"), name)
        return found
    raise AttributeError(f"module 'qpipe' has no attribute {name!r}")
