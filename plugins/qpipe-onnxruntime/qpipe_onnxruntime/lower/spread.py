"""Weights for packs of pixels stored as they were, and spread over the packs when onnxruntime loads the engine.

Spread weights hold each weight once per pixel of a pack, and zeros. Operators on constants alone are computed once, at
load (constant folding, from graph optimization `basic` on), and their result is laid out for the kernels like any
other constant: what runs is the same. Each such operator takes about 0.1 ms of loading, whatever its size, and their
presence about 1 ms, hence one chain of them for all convolutions of one shape (docs/benchmarks/packing.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.quant.graph import name_of
from qpipe.quant.writer import Writer
from qpipe_onnxruntime.lower.islands import array_of
from qpipe_onnxruntime.lower.pixels import Packs, Rows, taps

LEAST_SHARE, LEAST_BYTES = 0.05, 8192
"""What a chain must save to be worth 1.5 ms of loading: of the weights of the whole graph, and at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The weights of one convolution on packs of pixels."""

    packed: ir.Value
    """The initializer for packs: [g·O, f·C, kh, kw']."""
    weights: NDArray[np.generic]
    """Before they were spread: [O, C, kh, kw]."""
    rows: Rows
    packs: Packs

    @property
    def kind(self) -> tuple[tuple[int, ...], Rows, Packs]:
        """What those have in common that one chain of operators can spread."""
        return self.weights.shape, self.rows, self.packs

    @property
    def saved_bytes(self) -> int:
        """What it saves to store them as they were."""
        return array_of(self.packed).nbytes - self.weights.nbytes


def store_small(graph: ir.Graph, found: Iterable[Spread]) -> int:
    """Store the weights of convolutions as they were where that saves a noticeable share, in place; how many.

    Args:
        graph: without initializers that nobody reads.
        found: weights for packs in it.
    """
    kinds: dict[tuple[tuple[int, ...], Rows, Packs], list[Spread]] = {}
    for one in found:
        kinds.setdefault(one.kind, []).append(one)
    total = sum(value.const_value.nbytes for value in graph.initializers.values() if value.const_value is not None)
    least = max(LEAST_BYTES, LEAST_SHARE * total)
    worth = [alike for alike in kinds.values() if sum(one.saved_bytes for one in alike) >= least]
    writer, first = Writer(graph), graph[0]
    for alike in worth:
        spread_at_load(writer, first, alike)
    return sum(map(len, worth))


def spread_at_load(writer: Writer, before: ir.Node, alike: Sequence[Spread]) -> None:
    """Put operators in place of weights of one kind that make them from one constant: `pack_weights` as a graph."""
    one, base = alike[0], f"{name_of(alike[0].packed)}/small"
    (outputs, inputs, height, _), packs, count = one.weights.shape, one.packs, len(alike)
    seen = taps(one.rows, packs)
    # Columns first, as blocks of memory; [g, f, kw', O, n, C, kh] → [g, O, n, f, C, kh, kw']. A pack of one pixel has
    # no axis here: onnxruntime moves one axis ten times faster than two.
    index, order = (seen[:, 0], (0, 2, 3, 4, 5, 1)) if packs.image == 1 else (seen, (0, 3, 4, 1, 5, 6, 2))
    shape = [packs.result * outputs, count * packs.image * inputs, height, seen.shape[2]]
    small = np.ascontiguousarray(np.stack([item.weights for item in alike]).transpose(4, 1, 0, 2, 3))

    def constant(part: str, numbers: Sequence[int] | NDArray[np.int64]) -> ir.Value:
        return writer.initializer(f"{base}/{part}", np.asarray(numbers, np.int64))

    value = writer.initializer(base, small)
    value = writer.insert(before, "Pad", [value, constant("zero", [0] * 5 + [1] + [0] * 4)])
    value = writer.insert(before, "Gather", [value, constant("taps", index)], {"axis": 0})
    value = writer.insert(before, "Transpose", [value], {"perm": order})
    value = writer.insert(before, "Reshape", [value, constant("shape", shape)])
    sizes = constant("sizes", [packs.image * inputs] * count)
    split = ir.node("Split", [value, sizes], {"axis": 1}, num_outputs=count)
    writer.graph.insert_before(before, split)
    for item, new in zip(alike, split.outputs, strict=True):
        _replace(writer.graph, item.packed, new)


def _replace(graph: ir.Graph, packed: ir.Value, new: ir.Value) -> None:
    """Let the output of an operator stand for an initializer, under its name."""
    name = name_of(packed)
    packed.replace_all_uses_with(new)
    del graph.initializers[name]
    packed.name, new.name = None, name
