"""Handing an in-memory graph to the runtime, whatever its size."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from qpipe.quant.graph import LARGE_BYTES, own_weights, save_graph


@contextmanager
def content_of(model: ir.Model) -> Iterator[bytes | str]:
    """The graph as bytes, or as the path of a temporary file where it is too large for protobuf."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size < LARGE_BYTES // 2:
        own_weights(model)
        yield ir.to_proto(model).SerializeToString()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(save_graph(model, Path(folder) / "model.onnx"))
