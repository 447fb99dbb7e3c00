"""Exact rewrites of a float graph before it is quantized: constants, BatchNorm, Pad and channel-wise arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common as passes

from qpipe.quant.fold.affine import fold_affine
from qpipe.quant.fold.constants import fold_constants
from qpipe.quant.fold.gemm import normalize_gemms
from qpipe.quant.fold.identity import drop_identities
from qpipe.quant.fold.pad import fold_pads
from qpipe.quant.fold.select import fold_selections
from qpipe.quant.fold.transposed import fold_transposes
from qpipe.quant.graph import infer_shapes

VERSION = 2
"""Of what folding makes of a graph: folded graphs are kept under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """One node that a rewrite took out, and into what it went."""

    kind: str
    node: str
    into: str


def fold(model: ir.Model, *, selections: bool = True) -> tuple[Rewrite, ...]:
    """Fold constants, BatchNorm, Pad and per-channel arithmetic into Conv and Gemm, in place.

    `selections` also turns strided Slice + channel Pad (shortcuts without weights) into one 1×1 Conv of zeros and ones,
    which integer kernels run where they would leave Pad in float. Names of tensors that survive are kept.
    """
    graph = model.graph
    done: list[tuple[str, str, str]] = []
    done += [("identity", name, "") for name in drop_identities(graph)]
    done += [("constant", name, "") for name in (*fold_transposes(graph), *fold_constants(model))]
    done += [("pad", pad, conv) for pad, conv in fold_pads(graph)]
    done += [("gemm", node, into) for node, into in normalize_gemms(graph)]
    done += [("affine", node, into) for node, into in fold_affine(graph)]
    if selections:
        done += [("selection", node, into) for node, into in fold_selections(graph)]
    passes.RemoveUnusedNodesPass()(model)
    infer_shapes(model)
    return tuple(Rewrite(kind=kind, node=node, into=into) for kind, node, into in done)
