"""Exact rewrites of a float graph before it is quantized: constants, BatchNorm, Pad and channel-wise arithmetic."""

from __future__ import annotations

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


def fold(model: ir.Model, *, selections: bool = True) -> bool:
    """Fold constants, BatchNorm, Pad and per-channel arithmetic into Conv and Gemm, in place.

    Returns whether weighted operators were changed, so that the outputs have to be compared with those before.
    `selections` also turns strided Slice + channel Pad (shortcuts without weights) into one 1×1 Conv of zeros and ones,
    which integer kernels run where they would leave Pad in float. Names of tensors that survive are kept.
    """
    graph = model.graph
    drop_identities(graph)
    fold_transposes(graph)
    fold_constants(model)
    changed = fold_pads(graph) + normalize_gemms(graph) + fold_affine(graph)
    changed += fold_selections(graph) if selections else 0
    passes.RemoveUnusedNodesPass()(model)
    infer_shapes(model)
    return changed > 0
