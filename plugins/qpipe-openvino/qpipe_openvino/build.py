"""Build: the graph as OpenVINO IR, and what the CPU plugin makes of it here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from qpipe.errors import BuildError
from qpipe.measure.cpu import read_cpu
from qpipe.records.engine import Built, Prepared
from qpipe.records.target import Target
from qpipe.records.tensors import Signature
from qpipe_openvino.comparing import compare
from qpipe_openvino.compiling import compile_for, read, refusal
from qpipe_openvino.machine import requirements, toolchain
from qpipe_openvino.placement import Origin, place, read_layers

if TYPE_CHECKING:
    import openvino as ov

    from qpipe.plugins.backend import Progress

MAIN = "model.xml"
WEIGHTS = "model.bin"


def build_engine(prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
    """`model.xml` and `model.bin` in `workdir`, and the placement of the model compiled from these files.

    Raises:
        BuildError: OpenVINO refused the graph, or gave it another border; the message has its reason.
        RefusedError: what it compiled computes something else than the graph.
    """
    try:
        progress.step("convert")
        write(prepared.deployable.path, workdir / MAIN)
        progress.step("compile")
        compiled = compile_for(read(workdir / MAIN), target.threads)
    except RuntimeError as error:
        raise BuildError(f"OpenVINO refuses this graph: {refusal(error)}") from error
    _check_border(compiled, prepared.signature)
    graph = onnx.load(prepared.graph.path, load_external_data=False).graph
    stored = _stored(graph)
    progress.step("compare with onnxruntime")
    agreed = compare(compiled, prepared, half=bool(stored))
    placement = place(read_layers(compiled), prepared.plan, _origins(graph), stored=stored)
    quantized = prepared.plan is not None
    return Built(
        files=(Path(MAIN), Path(WEIGHTS)),
        placement=placement,
        requires=requirements(
            target, read_cpu(), quantized=quantized, bfloat16=not quantized and placement.integer > 0
        ),
        toolchain=toolchain(),
        notes=(agreed,),
    )


def _origins(graph: onnx.GraphProto) -> dict[str, Origin]:
    """Nodes by their names and those of their outputs."""
    return {
        name: Origin(node=node.name or node.output[0], op=node.op_type)
        for node in graph.node
        for name in (node.name, *node.output)
        if name
    }


def _stored(graph: onnx.GraphProto) -> str:
    """The half-precision type of weights in a graph, or an empty string."""
    halves = {onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.BFLOAT16: "bfloat16"}
    return next((halves[one.data_type] for one in graph.initializer if one.data_type in halves), "")


def write(source: Path, path: Path) -> None:
    """An ONNX file as IR, with every weight in the type that it has there: by default float32 would become float16."""
    import openvino as ov

    ov.save_model(read(source), str(path), compress_to_fp16=False)


def _check_border(compiled: ov.CompiledModel, signature: Signature) -> None:
    """Names and dtypes of the compiled model are the user's."""
    for ports, specs in ((compiled.inputs, signature.inputs), (compiled.outputs, signature.outputs)):
        dtypes = {name: port.get_element_type().to_dtype() for port in ports for name in port.get_names()}
        for spec in specs:
            if dtypes.get(spec.name) != np.dtype(spec.dtype):
                raise BuildError(f"OpenVINO has no {spec} at the border of this graph, but {dtypes}")
