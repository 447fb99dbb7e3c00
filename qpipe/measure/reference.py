"""The reference runner: onnxruntime on the CPU, for the float reference, calibration and attribution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ModelError
from qpipe.measure.ort import OrtSession, cpu_options, refusal

if TYPE_CHECKING:
    from qpipe.plugins.backend import Session
    from qpipe.records.model import OnnxFile


def open_reference(file: OnnxFile | Path, threads: int = 1) -> Session:
    """A session on an ONNX file as it stands, on `threads` threads without spinning.

    Raises:
        ModelError: onnxruntime cannot load it; the message has its reason.
    """
    import onnxruntime as ort

    path = file if isinstance(file, Path) else file.path
    try:
        return OrtSession(ort.InferenceSession(str(path), cpu_options(threads), providers=["CPUExecutionProvider"]))
    except Exception as error:
        reason, hint = refusal(error)
        raise ModelError(f"{path}: the reference runner cannot load this model: {reason}", hint=hint) from error
