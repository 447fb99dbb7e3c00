"""What a backend answers, taken for no more than it is: an exception or another type is told as the plugin's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from qpipe.errors import PluginError, QpipeError
from qpipe.plugins.backend import Backend
from qpipe.plugins.calls import one_line, prints_aside
from qpipe.records import codec
from qpipe.records.engine import Availability
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target

T = TypeVar("T")


def ask_availability(backend: Backend, target: Target) -> Availability:
    """Whether engines of a target can be built and run here.

    Raises:
        TargetError: the backend does not know the target's options or scheme.
        PluginError: it raises something else, or answers with something else.
    """
    return _ask(backend, backend.check, target, Availability)


def ask_scheme(backend: Backend, target: Target) -> Scheme:
    """The arithmetic that a target really runs.

    Raises:
        TargetError, PluginError: as `ask_availability`.
    """
    return _ask(backend, backend.scheme, target, Scheme)


def _ask(backend: Backend, method: Callable[[Target], object], target: Target, kind: type[T]) -> T:
    said = f"backend {backend.name}: {method.__name__}({target.name})"
    try:
        with prints_aside():
            found = method(target)
    except QpipeError:
        raise
    except Exception as error:
        raise PluginError(f"{said} raised {one_line(error)}") from error
    return as_record(found, kind, said)


def as_record(answer: object, kind: type[T], said: str) -> T:
    """An answer as the record that it should be, with its fields in their own types (a list becomes a tuple).

    Args:
        answer: what a plugin gave.
        kind: the frozen dataclass that it should be.
        said: who gave it, for the message.

    Raises:
        PluginError: it is something else, or a field is.
    """
    if not isinstance(answer, kind):
        raise PluginError(f"{said} gives {type(answer).__name__}, not {kind.__name__}")
    try:
        return codec.decode(kind, codec.encode(answer))
    except (TypeError, ValueError) as error:
        raise PluginError(f"{said} gives {kind.__name__} with {str(error).lstrip('.')}") from error
