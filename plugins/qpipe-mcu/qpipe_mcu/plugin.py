"""What this plugin brings: the `tflm` and `ethos-u` backends."""

from __future__ import annotations

from collections.abc import Iterable

from qpipe.plugins.backend import Backend
from qpipe.plugins.hookspecs import hookimpl
from qpipe_mcu.ethos import EthosBackend
from qpipe_mcu.tflm import TflmBackend


@hookimpl
def qpipe_backends() -> Iterable[Backend]:
    """tflite-micro and Vela."""
    return (TflmBackend(), EthosBackend())
