"""The reference runner: onnxruntime on the CPU, for the float reference, calibration and attribution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ModelError
from qpipe.measure.ort import OrtSession, computation, cpu_options, refusal

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
    options = cpu_options(threads)
    try:
        return OrtSession(ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    except Exception as error:
        reason, hint = refusal(error)
        raise ModelError(f"{path}: the reference runner cannot load this model: {reason}", hint=hint) from error


def reference_computation(file: OnnxFile, threads: int = 1) -> str:
    """The name of what the reference runner computes, or empty for a model with external data."""
    from qpipe.store.seals import seal

    if file.path.stat().st_size != file.size_bytes:
        return ""
    return computation(seal(file.path).sha256, cpu_options(threads))
