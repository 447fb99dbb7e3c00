"""Registration: the object that the entry point names."""

from __future__ import annotations

from collections.abc import Iterable

from qpipe.plugins.backend import Backend
from qpipe.plugins.hookspecs import hookimpl
from qpipe_tensorrt.backend import TensorRT


@hookimpl
def qpipe_backends() -> Iterable[Backend]:
    """The backend of both products."""
    return (TensorRT(),)
