"""ai-edge-quantizer's own minimum and maximum of each tensor, beside onnxruntime's on the same made-up rows.

Ranges come from the plan; this says that the tensors of the file are those that the ranges were carried over from, by
another program than the one that matched them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qpipe.records.engine import Prepared
from qpipe_litert.convert import Converted
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_litert.interpreter import open_interpreter
from qpipe_litert.layout import to_file
from qpipe_litert.onnx_graph import run_reference, widened
from qpipe_litert.probe import probe_inputs
from qpipe_litert.quantize import minmax_ranges

Array = NDArray[np.generic]
_NEAR = 1e-3
"""Of the tensor's largest magnitude: float sums in another order."""


def compare_extremes(prepared: Prepared, converted: Converted, matched: Mapping[int, tuple[str, ...]]) -> str:
    """On how many tensors both agree, in words; the ones that differ are named."""
    inputs = widened(probe_inputs(prepared, 2 if converted.layout.any_batch else 1, seed=1))
    ours = {**inputs, **run_reference(converted.graph, inputs, intermediates=True)}
    try:
        theirs = minmax_ranges(converted.path, _batches(converted, inputs))
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as problem:
        return f"ai-edge-quantizer's own minimum and maximum: not compared ({' '.join(str(problem).split())[:200]})"
    names = {tensor.index: tensor.name for tensor in read_flatbuffer(converted.path).tensors}
    compared = [(names[i], ours[onnx[-1]]) for i, onnx in matched.items() if names[i] in theirs and onnx[-1] in ours]
    apart = [name for name, array in compared if not _same(array, theirs[name])]
    count = f"{len(compared) - len(apart)} of {len(compared)} tensors"
    said = f"ai-edge-quantizer's own minimum and maximum agree with onnxruntime's on {count} (made-up rows)"
    return f"{said}; not on {', '.join(apart[:5])}" if apart else said


def _batches(converted: Converted, inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """One row at a time, as the file takes them, by the names of its signature."""
    interpreter = open_interpreter(converted.path)
    details = interpreter.get_signature_runner("serving_default").get_input_details()
    by_index = {int(detail["index"]): (name, detail["dtype"]) for name, detail in details.items()}
    places = [int(detail["index"]) for detail in interpreter.get_input_details()]
    rows = len(next(iter(inputs.values()))) if converted.layout.any_batch else 1
    batches = []
    for row in range(rows):
        batch: dict[str, Array] = {}
        for port in converted.layout.inputs:
            name, dtype = by_index[places[port.position]]
            array = inputs[port.name]
            batch[name] = to_file(port, array[row : row + 1] if converted.layout.any_batch else array).astype(dtype)
        batches.append(batch)
    return batches


def _same(array: Array, found: tuple[float, float]) -> bool:
    low, high = float(array.min()), float(array.max())
    limit = _NEAR * max(abs(low), abs(high)) + 1e-6
    return abs(low - found[0]) <= limit and abs(high - found[1]) <= limit
