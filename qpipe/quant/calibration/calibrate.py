"""Streaming calibration: every batch is run once, and nothing of it is kept but sums, extremes and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import DataError, QuantizationError
from qpipe.plugins.backend import Tensors
from qpipe.quant.calibration.observe import DRAWN_PER_ROW, LIMIT, PHASE, instrument
from qpipe.quant.calibration.statistics import InputStatistics, Statistics
from qpipe.quant.calibration.tally import Tally
from qpipe.quant.microbatches import Slicer

if TYPE_CHECKING:
    import onnxruntime as ort

IN_A_LINE = 16
"""Rows in a line among which the narrowest range of an input is looked for."""
MEMORY_BYTES = 96 * 2**20
"""Bound on the activations of one micro-batch."""


def calibrate(
    model: ir.Model,
    batches: Iterable[Tensors],
    axes: Mapping[str, int],
    *,
    memory_bytes: int = MEMORY_BYTES,
    drawn_per_row: int = DRAWN_PER_ROW,
    channels: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Statistics:
    """Run every batch once through the float graph and gather statistics of the tensors in `axes`.

    Batches may differ in length and shape. `memory_bytes` bounds the activations of one run: batches are cut along
    axis 0 until they fit, where the graph allows. Memory does not depend on the number of rows. `channels` keeps whole
    channel vectors of tensors with channels on axis 1 too (at most 2 MiB each). `advance` is told rows.

    Raises:
        DataError: no rows, or rows that the graph does not take.
        QuantizationError: the float graph itself does not run on them; the message has the runtime's reason.
    """
    probed, probes = instrument(model, axes, channels=channels, drawn_per_row=drawn_per_row)
    session = _open(probed) if probes else None  # nothing to observe: nothing is run
    tensors = [Tally(probe) for probe in probes]
    places = list(pairwise(np.cumsum([0, *(len(probe.outputs) for probe in probes)]).tolist()))
    names = [name for probe in probes for name in probe.outputs]
    slicer = Slicer(model, memory_bytes)
    inputs = _Inputs([name for value in model.graph.inputs if (name := value.name)])
    rows = count = runs = 0
    for batch in batches:
        inputs.take(batch)
        count += 1
        for part in slicer.parts({name: batch[name] for name in inputs.names}):
            size = _rows(part)
            feed = {**part, LIMIT: np.array([max(size * drawn_per_row, 1)]), PHASE: np.array([runs * 7919])}
            outputs = _run(session, names, feed) if session is not None else []
            for tensor, (begin, end) in zip(tensors, places, strict=True):
                tensor.take(outputs[begin:end], size)
            rows, runs = rows + size, runs + 1
            advance(size)
    if not rows:
        raise DataError("calibration got no rows", hint="give at least one batch of model inputs")
    results = [tensor.result() for tensor in tensors]
    return Statistics(
        rows=rows,
        batches=count,
        inputs=inputs.results(),
        tensors={item.tensor: item for item in results if item is not None},
        missing=tuple(tensor.probe.tensor for tensor, item in zip(tensors, results, strict=True) if item is None),
    )


def _rows(part: Tensors) -> int:
    first = next(iter(part.values()), None)
    return int(first.shape[0]) if first is not None and first.ndim else 1


class _Inputs:
    """What was met at the inputs of the model: extremes, the narrowest range of some rows, and shapes."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.low: dict[str, float] = {}
        self.high: dict[str, float] = {}
        self.narrowest: dict[str, float] = {}
        self.shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def take(self, batch: Tensors) -> None:
        for name in self.names:
            if name not in batch:
                raise DataError(
                    f"calibration rows have no {name!r}, which the model needs",
                    hint=f"they have {', '.join(sorted(batch))}",
                )
            array = np.asarray(batch[name])
            small, large = self.shapes.get(name, (array.shape, array.shape))
            if len(small) != array.ndim:
                raise DataError(f"calibration batches of {name!r} have {len(small)} and {array.ndim} axes")
            self.shapes[name] = (
                tuple(map(min, small, array.shape)),
                tuple(map(max, large, array.shape)),
            )
            if array.size and array.dtype.kind in "fiub":
                self._take(name, array)

    def _take(self, name: str, array: NDArray[np.generic]) -> None:
        for start in range(0, len(array) if array.ndim else 1, IN_A_LINE):
            part = array[start : start + IN_A_LINE] if array.ndim else array
            low, high = float(part.min()), float(part.max())
            self.low[name] = min(self.low.get(name, low), low)
            self.high[name] = max(self.high.get(name, high), high)
            self.narrowest[name] = min(self.narrowest.get(name, high - low), high - low)

    def results(self) -> tuple[InputStatistics, ...]:
        return tuple(
            InputStatistics(
                name=name,
                low=self.low.get(name, 0.0),
                high=self.high.get(name, 0.0),
                shapes=self.shapes[name],
                narrowest=self.narrowest.get(name, 0.0),
            )
            for name in self.names
        )


def _open(model: ir.Model) -> ort.InferenceSession:
    import onnxruntime as ort

    from qpipe.quant.session import content_of

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    try:
        with content_of(model, options) as content:
            return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise QuantizationError(f"the float graph does not load in onnxruntime: {error}", lasts=False) from error


def _run(session: ort.InferenceSession, names: list[str], feed: Tensors) -> list[NDArray[np.generic]]:
    try:
        arrays: list[NDArray[np.generic]] = session.run(names, dict(feed))
    except Exception as error:
        message = f"the float graph does not run on the calibration rows: {error}"
        raise QuantizationError(message, lasts=False) from error
    return arrays


def batches_of(rows: Mapping[str, NDArray[np.generic]], size: int) -> Iterator[Tensors]:
    """Cut arrays of equal length into batches of `size` rows."""
    length = len(next(iter(rows.values())))
    for start in range(0, length, size):
        yield {name: array[start : start + size] for name, array in rows.items()}
