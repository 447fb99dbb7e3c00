"""From a file to a compiled model, as building, evaluating and timing share it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino as ov


def read(path: Path) -> ov.Model:
    """A graph from ONNX or IR. `convert_model` would report its use to the vendor; `read_model` does not."""
    import openvino as ov

    return ov.Core().read_model(str(path))


def compile_for(model: ov.Model, threads: int) -> ov.CompiledModel:
    """The model on the CPU plugin: float means float32, threads are the target's and wander between processors.

    By default OpenVINO would compute float layers in bfloat16 on CPUs that have it, quantize activations of compressed
    layers at run time, and pin the threads of every process to the same processors.
    """
    import openvino as ov

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    return ov.Core().compile_model(model, "CPU", settings)


def refusal(error: Exception) -> str:
    """OpenVINO's reason on one line, without the places in its source that it was passed through."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(kept or lines)[:600]
