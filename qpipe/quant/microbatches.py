"""Cutting batches into micro-batches so that the activations of one run stay within a bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from qpipe.errors import DataError
from qpipe.plugins.backend import Tensors
from qpipe.quant.graph import infer_shapes

CACHED_BYTES = 4 * 2**20
"""Micro-batches whose live activations stay near the cache's size run fastest."""


class Slicer:
    """Cuts batches along axis 0 where all inputs share a free first axis (or to the size that the graph fixes)."""

    def __init__(self, model: ir.Model, memory_bytes: int) -> None:
        self.model = model
        self.bound = max(min(memory_bytes, CACHED_BYTES), 1)
        firsts = [
            value.shape[0] if value.shape is not None and len(value.shape) else None for value in model.graph.inputs
        ]
        fixed = {size for size in firsts if isinstance(size, int)}
        self.free = bool(firsts) and not fixed and None not in firsts
        self.fixed = fixed.pop() if len(fixed) == 1 and all(isinstance(size, int) for size in firsts) else None
        self.per_row: dict[tuple[tuple[int, ...], ...], int] = {}

    def parts(self, batch: Tensors) -> Iterator[Tensors]:
        """The batch in pieces of whole rows; one that cannot be cut comes back as it is."""
        lengths = {array.shape[0] for array in batch.values() if array.ndim}
        if len(lengths) != 1 or not all(array.ndim for array in batch.values()):
            yield batch
            return
        rows = lengths.pop()
        size = self._size(batch, rows)
        for start in range(0, rows, size):
            yield {name: array[start : start + size] for name, array in batch.items()}

    def _size(self, batch: Tensors, rows: int) -> int:
        if self.fixed is not None:
            return self.fixed if rows % self.fixed == 0 else rows
        if not self.free or rows <= 1:
            return max(rows, 1)
        key = tuple(array.shape[1:] for array in batch.values())
        if key not in self.per_row:
            self.per_row[key] = max(self._bytes_per_row(batch), 1)
        return int(np.clip(self.bound // self.per_row[key], 1, rows))

    def _bytes_per_row(self, batch: Tensors) -> int:
        if self.per_row:
            known, cost = next(iter(self.per_row.items()))
            return cost * _elements(tuple(array.shape[1:] for array in batch.values())) // max(_elements(known), 1)
        return live_bytes(self.model, {name: array[:1] for name, array in batch.items()})


def first_rows(model: ir.Model, batches: Iterable[Tensors], rows: int) -> Tensors:
    """The first `rows` rows of the first batch, as the graph takes them.

    Raises:
        DataError: there is no batch.
    """
    batch = next(iter(batches), None)
    if batch is None:
        raise DataError("calibration got no rows", hint="give at least one batch of model inputs")
    feed = {name: batch[name] for value in model.graph.inputs if (name := value.name or "") in batch}
    slicer = Slicer(model, CACHED_BYTES)
    if slicer.free and all(array.ndim for array in feed.values()):
        return {name: array[:rows] for name, array in feed.items()}
    return next(slicer.parts(feed))


def _elements(shapes: tuple[tuple[int, ...], ...]) -> int:
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)


def live_bytes(model: ir.Model, inputs: Tensors) -> int:
    """Largest sum of activations alive at once when the graph runs on these inputs.

    A tensor whose shape cannot be inferred counts as much as the largest tensor that its node reads.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        value.shape = ir.Shape(inputs[value.name or ""].shape)
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    infer_shapes(copy)
    last = {read: number for number, node in enumerate(copy.graph) for read in node.inputs if read is not None}
    sizes = {value: inputs[value.name or ""].nbytes for value in copy.graph.inputs}
    live = peak = 0
    for number, node in enumerate(copy.graph):
        reads = [value for value in dict.fromkeys(node.inputs) if value in sizes]
        for value in node.outputs:
            known = _bytes(value)
            sizes[value] = max((sizes[read] for read in reads), default=0) if known is None else known
            live += sizes[value] if value in last or value.is_graph_output() else 0
        peak = max(peak, live)
        live -= sum(sizes[read] for read in reads if last[read] == number and read.producer() is not None)
    return peak


def _bytes(value: ir.Value) -> int | None:
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        return None
    elements = np.prod([int(dim) for dim in value.shape if isinstance(dim, int)], dtype=np.int64)
    return int(elements) * (value.dtype.bitwidth // 8 if value.dtype is not None else 4)
