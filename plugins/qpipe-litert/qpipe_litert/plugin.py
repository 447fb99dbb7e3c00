"""What this plugin brings: the `litert` backend."""

from __future__ import annotations

from collections.abc import Iterable

from qpipe.plugins.backend import Backend
from qpipe.plugins.hookspecs import hookimpl
from qpipe_litert.backend import LiteRtBackend


@hookimpl
def qpipe_backends() -> Iterable[Backend]:
    """The LiteRT backend."""
    return (LiteRtBackend(),)
