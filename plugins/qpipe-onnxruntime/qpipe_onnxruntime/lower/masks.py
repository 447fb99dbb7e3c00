"""Masks of attention as the fused kernel takes them: [B or 1, n or 1, S, T], no other axis broadcast."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.writer import Writer
from qpipe_onnxruntime.lower.bounds import FLOOR, needs_floor
from qpipe_onnxruntime.lower.extents import Extent, Extents
from qpipe_onnxruntime.lower.heads import Mask, added


class Masks:
    """The masks of a graph as the kernel takes them; the same one for all blocks that mean the same."""

    def __init__(self, writer: Writer, extents: Extents) -> None:
        self.writer, self.extents = writer, extents
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def get(self, wanted: tuple[Mask, ...], q: ir.Value, k: ir.Value, before: ir.Node) -> ir.Value | None:
        """The sum of these masks as [B or 1, n or 1, S, T]."""
        if not wanted:
            return None
        lengths = self.extents.extent(q, 1), self.extents.extent(k, 1)
        key = (wanted, lengths)
        if key not in self._made:
            total = self._added(wanted[0], before)
            for one in wanted[1:]:
                total = self.writer.insert(before, "Add", [total, self._added(one, before)])
            if needs_floor([added(one) for one in wanted]):
                floor = self.writer.initializer("mask_floor", np.asarray(FLOOR))
                shape, total = total.shape, self.writer.insert(before, "Max", [total, floor])
                total.shape = shape
            self._made[key] = total if self._fits(total, lengths) else self._expanded(total, q, k, before)
        return self._made[key]

    def _added(self, mask: Mask, before: ir.Node) -> ir.Value:
        if isinstance(mask, ir.Value):
            return mask
        key = (mask,)
        if key not in self._made:
            zero = self.writer.initializer("mask_zero", np.zeros((), np.float32))
            branches = [zero, mask.fill] if mask.keeps else [mask.fill, zero]
            self._made[key] = self.writer.insert(before, "Where", [mask.condition, *branches])
        return self._made[key]

    def _fits(self, mask: ir.Value, lengths: tuple[Extent, Extent]) -> bool:
        if mask.shape is None or not 2 <= len(mask.shape) <= 4:
            return False
        rank = len(mask.shape)
        own = tuple(self.extents.extent(mask, axis) for axis in (rank - 2, rank - 1))
        return own == lengths

    def _expanded(self, mask: ir.Value, q: ir.Value, k: ir.Value, before: ir.Node) -> ir.Value:
        ones = self.writer.initializer("mask_ones", np.ones(2, np.int64))
        rows, columns = (self.writer.insert(before, "Shape", [one], {"start": 1, "end": 2}) for one in (q, k))
        shape = self.writer.insert(before, "Concat", [ones, rows, columns], {"axis": 0})
        return self.writer.insert(before, "Expand", [mask, shape])
