"""What this distribution brings to qpipe."""

from __future__ import annotations

from pathlib import Path

from qpipe.plugins.backend import Backend
from qpipe.plugins.hookspecs import hookimpl
from qpipe.records.target import Target
from qpipe_openvino.backend import OpenVinoBackend


@hookimpl
def qpipe_backends() -> list[Backend]:
    """One backend."""
    return [OpenVinoBackend()]


@hookimpl
def qpipe_targets() -> tuple[Target, ...]:
    """The files in `targets/`."""
    from qpipe.config import read_targets

    return read_targets(Path(__file__).with_name("targets"), owner="qpipe-openvino")
