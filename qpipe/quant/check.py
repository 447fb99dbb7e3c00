"""Numeric check of rewrites: the float graph must give what it gave before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.plugins.backend import Tensors
from qpipe.quant.microbatches import first_rows

ROWS = 8
"""Rows of the first calibration batch that the check runs."""
TOLERANCE = 1e-3
"""Largest difference allowed, relative to the largest magnitude of the output: float32 sums in another order."""


def run_float(model: ir.Model, feed: Tensors) -> list[NDArray[np.generic]]:
    """Outputs of a graph in the reference runtime, one thread.

    Raises:
        QuantizationError: the graph does not load or run; the message has the runtime's reason.
    """
    return run_feeds(model, (feed,))[0]


def run_feeds(model: ir.Model, feeds: Iterable[Tensors]) -> list[list[NDArray[np.generic]]]:
    """Outputs of a graph for each of several feeds, from one session; as `run_float` otherwise."""
    import onnxruntime as ort

    from qpipe.quant.session import content_of

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        with content_of(model, options) as content:
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        arrays: list[list[NDArray[np.generic]]] = [session.run(None, dict(feed)) for feed in feeds]
    except Exception as error:
        raise QuantizationError(f"the graph does not run in onnxruntime: {error}", lasts=False) from error
    return arrays


def check_rewrite(
    before: ir.Model, after: ir.Model, batches: Iterable[Tensors], *, stage: str = "fold", hint: str = ""
) -> float:
    """`check_same` on the first calibration rows.

    Raises:
        DataError: there is no batch.
        QuantizationError: as `check_same`.
    """
    return check_same(before, after, first_rows(before, batches, ROWS), stage=stage, hint=hint)


def check_same(
    before: ir.Model, after: ir.Model, batch: Mapping[str, NDArray[np.generic]], *, stage: str = "fold", hint: str = ""
) -> float:
    """Compare a graph before and after one stage on one batch; gives the largest relative difference.

    Raises:
        QuantizationError: an output differs by more than `TOLERANCE` of its largest magnitude.
    """
    feed = {value.name or "": batch[value.name or ""] for value in before.graph.inputs}
    worst = 0.0
    pairs = zip(before.graph.outputs, run_float(before, feed), run_float(after, feed), strict=True)
    for value, old, new in pairs:
        if old.dtype.kind != "f":
            continue
        difference = relative_difference(np.asarray(old, np.float64), np.asarray(new, np.float64))
        if not difference <= TOLERANCE:
            raise QuantizationError(
                f"stage {stage!r} changed output {value.name!r} by {difference:.2g} of its largest magnitude",
                hint=hint or f"leave the `{stage}` stage out of the recipe",
            )
        worst = max(worst, difference)
    return worst


def relative_difference(old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Max |old − new| / max |old| over finite values; infinity where they are not finite at the same places."""
    finite = np.isfinite(old)
    if not np.array_equal(finite, np.isfinite(new)):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = float(np.abs(old[finite]).max())
    difference = float(np.abs(old[finite] - new[finite]).max())
    return difference / scale if scale > 0 else difference
