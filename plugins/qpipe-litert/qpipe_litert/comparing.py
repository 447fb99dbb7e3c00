"""Whether an engine computes what its graph computes: some kernels ignore a scale and give other numbers, silently."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError, RefusedError
from qpipe.measure.probe import (
    QUANTIZED_DB,
    Agreement,
    agreements,
    beyond_rounding,
    outputs_as_written,
    worst,
)
from qpipe.plugins.backend import Session, Tensors
from qpipe.records.engine import Prepared
from qpipe.records.quantization import QuantPlan
from qpipe_litert.probe import probe_inputs

Array = NDArray[np.generic]
_OTHER_DB = 10.0
"""LiteRT rounds more than the plan says (every operator with a range, weights by its own rules): that leaves 20 dB and
more on the graphs that were tried; kernels that ignored a scale or read another layout left less than 10."""
LEAVE = "leave nodes in float (`keep_float` of stage quantize)"


def compare_engine(prepared: Prepared, session: Session, *, rows: int, runtime: str) -> str:
    """How well an opened engine agrees with onnxruntime on the quantized graph, in words.

    Args:
        prepared: the graphs as they were handed over.
        session: the engine that was built from them.
        rows: made-up rows that both get; 1 where the engine takes each row alone.
        runtime: what computes the engine here, for messages.

    Raises:
        RefusedError: it computes something else.
        EngineError: it cannot run the batch.
    """
    feed = probe_inputs(prepared, rows)
    found = session.run(feed)
    try:
        wanted = outputs_as_written(prepared.deployable.path, prepared, feed)
    except EngineError as problem:
        return f"{runtime}'s answers were not compared with onnxruntime's: {problem.message}"
    _refuse_constants(prepared, feed, found, runtime)
    agreed = agreements(wanted, found)
    told = f"{runtime} agrees with onnxruntime on made-up rows: {worst(agreed)}"
    far = [one for one in agreed if one.db < QUANTIZED_DB]
    if not far:
        return told
    if prepared.plan is not None and prepared.qdq is None:
        return f"{told} of the float graph (the plan has no rendering to compare with)"
    further = far if prepared.plan is None else beyond_rounding(far, prepared, feed, wanted, found)
    if not further:
        return f"{told}, no further from the float graph than the plan's rounding explains"
    named = worst(further)
    if prepared.plan is None or named.db < _least(prepared.plan):
        raise _refusal(named, runtime, quantized=prepared.plan is not None)
    return f"{told}, further from the float graph than the plan's rounding explains"


def _least(plan: QuantPlan) -> float:
    """Weights of 4 bits are rounded by the toolchain itself, by other rules than the plan's rendering has."""
    return _OTHER_DB if min((spec.bits for spec in plan.weights), default=8) == 8 else 0.0


def _refuse_constants(prepared: Prepared, feed: Tensors, found: Tensors, runtime: str) -> None:
    """One and the same number everywhere where the float model has several."""
    constant = [name for name, array in found.items() if array.size > 1 and _spread(array) == 0]
    ideal = outputs_as_written(prepared.graph.path, prepared, feed) if constant else {}
    for name in constant:
        if _spread(ideal[name]) > 0:
            raise RefusedError(
                f"{runtime} gives one and the same number everywhere in {name} on made-up rows",
                hint=f"a kernel ignores its quantization parameters, or a range is far too wide: {LEAVE}",
            )


def _spread(array: Array) -> float:
    return float(np.ptp(array.astype(np.float64)))


def _refusal(named: Agreement, runtime: str, *, quantized: bool) -> RefusedError:
    other = "take a target of backend onnxruntime for this model"
    return RefusedError(
        f"{runtime} computes another {named.output!r} than onnxruntime on made-up rows: {named}",
        hint=f"{LEAVE}, or {other}" if quantized else other,
    )
