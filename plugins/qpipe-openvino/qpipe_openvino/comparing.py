"""Whether the compiled model computes what its graph computes: some graphs come out wrong without an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import EngineError, RefusedError
from qpipe.measure.probe import (
    QUANTIZED_DB,
    Agreement,
    agreements,
    beyond_rounding,
    outputs_as_written,
    probe_inputs,
    probe_shapes,
    worst,
)
from qpipe.records.engine import Prepared
from qpipe_openvino.compiling import refusal

if TYPE_CHECKING:
    import numpy as np
    import openvino as ov
    from numpy.typing import NDArray

    from qpipe.plugins.backend import Tensors

_FLOAT_DB = 40.0
"""OpenVINO adds epsilons where ONNX has none (LpNormalization: 57 dB); what it computed wrongly had less than 10 dB."""


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
        wanted = outputs_as_written(prepared.deployable.path, prepared, feed)
    except EngineError as problem:
        return f"outputs were not compared with onnxruntime's: {problem.message}"
    made = _infer(compiled, prepared, feed)
    found = agreements(wanted, made)
    least = QUANTIZED_DB if half or prepared.plan else _FLOAT_DB
    wrong = [one for one in found if one.db < least]
    if wrong and prepared.qdq is not None:
        wrong = beyond_rounding(wrong, prepared, feed, wanted, made)
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


def _infer(compiled: ov.CompiledModel, prepared: Prepared, feed: Tensors) -> dict[str, NDArray[np.generic]]:
    request = compiled.create_infer_request()
    try:
        request.infer(dict(feed), share_inputs=True)
        return {spec.name: request.get_tensor(spec.name).data.copy() for spec in prepared.signature.outputs}
    except RuntimeError as error:
        raise RefusedError(f"OpenVINO cannot run what it compiled: {refusal(error)}") from error
