"""Whether the compiled model computes what its graph computes: some graphs come out wrong without an error."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import EngineError, RefusedError
from qpipe.measure.ort import OrtSession, cpu_options, refusal
from qpipe.measure.probe import QUANTIZED_DB, Agreement, agreements, probe_inputs, probe_shapes, worst
from qpipe.records.engine import Prepared
from qpipe_openvino.compiling import refusal as openvino_refusal

if TYPE_CHECKING:
    import numpy as np
    import openvino as ov
    from numpy.typing import NDArray

    from qpipe.plugins.backend import Tensors

_FLOAT_DB = 40.0
"""OpenVINO adds epsilons where ONNX has none (LpNormalization: 57 dB); what it computed wrongly had less than 10 dB."""
_OWN_DB = 6.0
"""An engine may be that much further from the float graph than the plan's own rounding is: roundings fall otherwise."""


def compare(compiled: ov.CompiledModel, prepared: Prepared, *, half: bool) -> str:
    """How well the compiled model agrees with onnxruntime on one made-up batch, in words.

    Args:
        compiled: of `prepared.deployable`.
        prepared: the graph as it was handed over.
        half: whether it rounds to 16 bits: that is no nearer than int8 need be.

    Raises:
        RefusedError: it computes something else, or cannot run the batch.
    """
    feed = probe_inputs(prepared, probe_shapes(prepared))
    try:
        wanted = _run(prepared.deployable.path, prepared, feed)
    except EngineError as problem:
        return f"outputs were not compared with onnxruntime's: {problem.message}"
    made = _infer(compiled, prepared, feed)
    found = agreements(wanted, made)
    least = QUANTIZED_DB if half or prepared.plan else _FLOAT_DB
    wrong = [one for one in found if one.db < least]
    if wrong and prepared.qdq is not None:
        wrong = _beyond_rounding(wrong, prepared, feed, wanted, made)
    if not wrong:
        return f"agrees with onnxruntime on made-up rows: {worst(found)}"
    named = worst(wrong)
    raise RefusedError(
        f"OpenVINO computes another {named.output!r} than onnxruntime on made-up rows: {named}",
        hint=_hint(prepared, named),
    )


def _hint(prepared: Prepared, named: Agreement) -> str:
    other = "take a target of backend onnxruntime for this model, and report the graph to OpenVINO"
    if prepared.qdq is None or named.shapes:
        return other
    return f"`keep_float` of stage quantize leaves nodes in float (`stem`: the first ones); or {other}"


def _beyond_rounding(
    wrong: Iterable[Agreement], prepared: Prepared, feed: Tensors, wanted: Tensors, found: Tensors
) -> list[Agreement]:
    """Outputs that are further from the float graph than the plan's own rounding explains."""
    ideal = _run(prepared.graph.path, prepared, feed)
    own, engine = ({one.output: one.db for one in agreements(ideal, outputs)} for outputs in (wanted, found))
    return [one for one in wrong if engine[one.output] < own[one.output] - _OWN_DB]


def _run(path: Path, prepared: Prepared, feed: Tensors) -> dict[str, NDArray[np.generic]]:
    """Outputs of a graph, computed as it is written.

    Raises:
        EngineError: onnxruntime cannot load or run it.
    """
    import onnxruntime as ort

    options = cpu_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"it cannot load the graph: {refusal(error)[0]}") from error
    return OrtSession(session, prepared.signature).run(feed)


def _infer(compiled: ov.CompiledModel, prepared: Prepared, feed: Tensors) -> dict[str, NDArray[np.generic]]:
    request = compiled.create_infer_request()
    try:
        request.infer(dict(feed), share_inputs=True)
        return {spec.name: request.get_tensor(spec.name).data.copy() for spec in prepared.signature.outputs}
    except RuntimeError as error:
        raise RefusedError(f"OpenVINO cannot run what it compiled: {openvino_refusal(error)}") from error
