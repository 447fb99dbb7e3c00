"""Which ONNX tensor each `.tflite` tensor is: by values, since the converter renames and fuses.

Both graphs run on one probe batch with every intermediate exposed. Two tensors are the same where their sorted values
agree: the layout permutation cannot change those, and neither can it change a range.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from qpipe.errors import BuildError
from qpipe.records.engine import Prepared
from qpipe_litert.interpreter import invoke, open_interpreter, refused_by_kernel
from qpipe_litert.layout import Layout, close, to_file
from qpipe_litert.onnx_graph import run_reference, widened
from qpipe_litert.probe import probe_inputs

Array = NDArray[np.generic]
T = TypeVar("T", bound=Hashable)
_SEVERAL = 2


def match_tensors(
    prepared: Prepared, graph: onnx.ModelProto, path: Path, layout: Layout
) -> Mapping[int, tuple[str, ...]]:
    """ONNX names (in topological order) by `.tflite` tensor index; tensors without a counterpart are left out.

    Raises:
        BuildError: the file does not run on kernels that keep intermediates.
    """
    reference, found = _both(prepared, graph, path, layout)
    matched: dict[int, tuple[str, ...]] = {}
    for index, values in found.items():
        names = tuple(name for name, known in reference.items() if close(known, values, 1e-4))
        if names:
            matched[index] = names
    return matched


def _both(
    prepared: Prepared, graph: onnx.ModelProto, path: Path, layout: Layout
) -> tuple[dict[str, Array], dict[int, Array]]:
    """Sorted values of the graph's and of the file's tensors on made-up rows: in one batch, or one row after the other.

    One at a time where the kernels refuse two: XNNPACK finds shapes by itself that others read from the file. Several
    all the same, since a single number (the logit of two classes) says too little.
    """
    refused: Exception | None = None
    for rows in (2, 1) if layout.any_batch else (1,):
        batches = [widened(probe_inputs(prepared, rows, seed=seed)) for seed in range(1, 2 + _SEVERAL - rows)]
        try:
            found = _sorted([_file_tensors(path, layout, inputs) for inputs in batches])
        except (RuntimeError, ValueError) as problem:
            refused = problem
            continue
        return _reference(graph, batches), found
    told = " ".join(str(refused).split())[:300]
    message = f"LiteRT's reference kernels cannot run the converted model: {told}"
    raise BuildError(message, lasts=refused_by_kernel(told)) from refused


def _reference(graph: onnx.ModelProto, batches: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """By name, in topological order."""
    found = _sorted([{**inputs, **run_reference(graph, inputs, intermediates=True)} for inputs in batches])
    order = [value.name for value in graph.graph.input] + [name for node in graph.graph.node for name in node.output]
    return {name: found[name] for name in order if name in found}


def _sorted(runs: Sequence[Mapping[T, Array]]) -> dict[T, Array]:
    """All values of each float tensor over several runs; without tensors that are one and the same number."""
    joined = {
        key: np.concatenate([run[key].reshape(-1) for run in runs])
        for key, first in runs[0].items()
        if first.dtype == np.float32 and first.size
    }
    return {key: np.sort(values) for key, values in joined.items() if _varies(values)}


def _varies(array: Array) -> bool:
    return bool(np.any(array != array.flat[0]))


def _file_tensors(path: Path, layout: Layout, inputs: Mapping[str, Array]) -> dict[int, Array]:
    interpreter = open_interpreter(path, kernels="reference", keep_all=True)
    details = interpreter.get_input_details()
    ports = sorted(layout.inputs, key=lambda port: port.position)
    arrays = [
        to_file(port, inputs[port.name]).astype(detail["dtype"]) for port, detail in zip(ports, details, strict=True)
    ]
    invoke(interpreter, tuple(arrays), reset=False)
    found: dict[int, Array] = {}
    made = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    made |= {int(detail["index"]) for detail in details}
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] is np.float32 and detail["index"] in made:
            found[int(detail["index"])] = interpreter.get_tensor(detail["index"])
    return found
