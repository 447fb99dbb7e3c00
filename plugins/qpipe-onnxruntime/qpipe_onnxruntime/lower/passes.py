"""The passes over a quantized graph on its way into an engine."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common as passes

from qpipe.errors import BuildError
from qpipe.quant.graph import save_graph
from qpipe_onnxruntime.lower.attention import lower_attention
from qpipe_onnxruntime.lower.choices import Choice
from qpipe_onnxruntime.lower.integer import lower_images
from qpipe_onnxruntime.lower.loading import copy_lengths, forget_initializers


def lower(source: Path, destination: Path, choose: Choice) -> tuple[str, ...]:
    """Write the graph in the runtime's own operators; a note for each kind of change.

    Where there is nothing to change, nothing is written and there is no note.

    Args:
        source: a quantized graph.
        destination: of the engine's graph, weights inside up to 2 GB.
        choose: which convolutions of few channels run on packs of pixels.

    Raises:
        BuildError: the source cannot be read.
    """
    try:
        model = ir.load(source)
    except Exception as error:
        raise BuildError(f"{source} is not a readable ONNX file: {error}") from error
    shapes = [value.shape for value in model.graph.outputs]
    notes = (*lower_images(model, choose), *lower_attention(model))
    if notes:
        copy_lengths(model.graph)
        passes.RemoveUnusedNodesPass()(model)
        forget_initializers(model.graph)
        for value, shape in zip(model.graph.outputs, shapes, strict=True):
            value.shape = shape
        save_graph(model, destination)
    return notes
