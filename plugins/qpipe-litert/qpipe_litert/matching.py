"""Which ONNX tensor each `.tflite` tensor is: by values, since the converter renames and fuses.

Both graphs run on one probe batch with every intermediate exposed. Two tensors are the same where their sorted values
agree: the layout permutation cannot change those, and neither can it change a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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


def match_tensors(
    prepared: Prepared, graph: onnx.ModelProto, path: Path, layout: Layout
) -> Mapping[int, tuple[str, ...]]:
    """ONNX names (in topological order) by `.tflite` tensor index; tensors without a counterpart are left out.

    Raises:
        BuildError: the file does not run on kernels that keep intermediates.
    """
    inputs, found = _both(prepared, path, layout)
    reference = {**inputs, **run_reference(graph, inputs, intermediates=True)}
    sorted_reference = _sorted(graph, reference)
    matched: dict[int, tuple[str, ...]] = {}
    for index, array in found.items():
        values = np.sort(array, axis=None)
        names = tuple(name for name, known in sorted_reference.items() if close(known, values, 1e-4))
        if names:
            matched[index] = names
    return matched


def _both(prepared: Prepared, path: Path, layout: Layout) -> tuple[dict[str, Array], dict[int, Array]]:
    """Made-up rows, and the file's tensors of them.

    One row where the kernels refuse two: XNNPACK finds shapes by itself that others read from the file.
    """
    refused: Exception | None = None
    for rows in (2, 1) if layout.any_batch else (1,):
        inputs = widened(probe_inputs(prepared, rows, seed=1))
        try:
            return inputs, _file_tensors(path, layout, inputs)
        except (RuntimeError, ValueError) as problem:
            refused = problem
    told = " ".join(str(refused).split())[:300]
    message = f"LiteRT's reference kernels cannot run the converted model: {told}"
    raise BuildError(message, lasts=refused_by_kernel(told)) from refused


def _sorted(graph: onnx.ModelProto, reference: Mapping[str, Array]) -> dict[str, Array]:
    order = [value.name for value in graph.graph.input] + [name for node in graph.graph.node for name in node.output]
    floats = {name: reference[name] for name in order if name in reference}
    return {n: np.sort(a, axis=None) for n, a in floats.items() if a.dtype == np.float32 and a.size > 1 and _varies(a)}


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
            array = interpreter.get_tensor(detail["index"])
            if array.size > 1 and _varies(array):
                found[int(detail["index"])] = array
    return found
