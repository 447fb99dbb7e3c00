"""What this distribution brings to qpipe."""

from __future__ import annotations

from qpipe.plugins.backend import Backend
from qpipe.plugins.hookspecs import hookimpl
from qpipe_onnxruntime.backend import OnnxRuntimeBackend


@hookimpl
def qpipe_backends() -> list[Backend]:
    """One backend, `onnxruntime`; its targets are the core's `cpu-*` files."""
    return [OnnxRuntimeBackend()]
