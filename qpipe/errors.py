"""The errors that a user can cause or meet, each with a hint and an exit code.

Anything that is not a `QpipeError` is a bug and keeps its traceback (exit code 1).
A failed gate, a crashed build and a time-out are results, not errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class QpipeError(Exception):
    """A problem that the user can act on: what was found, where, and what would be right."""

    code: ClassVar[int] = 2
    lasts: bool = False
    """Whether a cell would meet it again as long as none of its ingredients changes: it is told from the store then."""

    def __init__(self, message: str, *, hint: str = "", lasts: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if lasts is not None:
            self.lasts = lasts


class ConfigError(QpipeError):
    """The pipeline file, a target file or the command line says something that cannot be."""


class ModelError(QpipeError):
    """The model is missing, broken, or not one that qpipe can read."""


class DataError(QpipeError):
    """The rows are missing, broken, of the wrong shape or dtype, or mixed between roles."""


class TargetError(QpipeError):
    """A target that does not exist, or a demand that its hardware can never meet."""


class PluginError(QpipeError):
    """A plugin that cannot be loaded, or two that claim one name."""


class QuantizationError(QpipeError):
    """A graph that cannot be quantized as asked; the message names the node. It lasts."""

    lasts = True


class UnavailableError(QpipeError):
    """A package, driver or machine that this cell needs is not here."""

    code = 5


class BuildError(QpipeError):
    """A toolchain refused to build the engine, or failed at it: it is tried again by the next run."""

    code = 5


class RefusedError(BuildError):
    """The target or its toolchain has nothing for this graph (an operator, a type, a size): it lasts."""

    lasts = True


class EngineError(QpipeError):
    """An engine that is tampered with, of another machine or version, or that cannot run."""

    code = 5


class StoreError(QpipeError):
    """The store cannot be read or written, or an object in it is not what its name says."""

    code = 5


class TrackingError(QpipeError):
    """MLflow was lost in mid-run, or refused what we wrote."""

    code = 5


class UnreachableError(TrackingError):
    """MLflow does not answer before any work has started."""

    code = 2


class PromotionError(QpipeError):
    """The alias could not be moved: somebody else moved it, or the engine has no right to it."""

    code = 5


class Interrupted(QpipeError):
    """Ctrl-C: the children are stopped, what was finished is in the store."""

    code = 130


class InterruptedFleet(Interrupted):
    """Of many pipelines: what was finished, and that the rest was not, stands on stdout already."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: `; did you mean 'int8'?`, or empty where nothing is near."""
    names = {candidate.lower(): candidate for candidate in known if candidate != name}
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
