"""What this distribution brings to qpipe."""

from __future__ import annotations

from qpipe.plugins.backend import Backend
from qpipe.plugins.hookspecs import hookimpl
from qpipe.records.target import Target
from qpipe_openvino.backend import OpenVinoBackend
from qpipe_openvino.machine import ARCH


@hookimpl
def qpipe_backends() -> list[Backend]:
    """One backend."""
    return [OpenVinoBackend()]


@hookimpl
def qpipe_targets() -> list[Target]:
    """One target: batch sizes, threads and shapes are for a pipeline to choose."""
    return [
        Target(
            name="x86-openvino",
            backend=OpenVinoBackend.name,
            summary="x86-64 with OpenVINO, one thread",
            arch=ARCH,
            owner="qpipe-openvino",
        )
    ]
