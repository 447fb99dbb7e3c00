"""Handing an in-memory graph to the runtime, whatever its size, without a copy of its weights where that can be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from qpipe.quant.graph import LARGE_BYTES, own_weights, save_graph, tensors

if TYPE_CHECKING:
    import onnxruntime as ort

FOLDER = "session.model_external_initializers_file_folder_path"
"""Where onnxruntime looks for the weights of a graph that comes as bytes; it maps their files into memory.

Source: onnxruntime_session_options_config_keys.h.
"""


@contextmanager
def content_of(model: ir.Model, options: ort.SessionOptions) -> Iterator[bytes | str]:
    """The graph as bytes, or as the path of a temporary file where its weights are large and lie in memory.

    Weights in files of one folder stay there: `options`, those of the session, are told where it has to look.
    """
    held = [tensor for tensor in tensors(model) if not isinstance(tensor, ir.ExternalTensor)]
    folders = {os.path.realpath(one.base_dir) for one in tensors(model) if isinstance(one, ir.ExternalTensor)}
    beside = len(folders) == 1
    if sum(tensor.nbytes for tensor in (held if beside else tensors(model))) >= LARGE_BYTES:
        with tempfile.TemporaryDirectory() as folder:
            yield str(save_graph(model, Path(folder) / "model.onnx"))
        return
    if beside:
        options.add_session_config_entry(FOLDER, folders.pop())
    else:
        own_weights(model)
    yield ir.to_proto(model).SerializeToString()
