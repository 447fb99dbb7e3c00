"""A Loop without a condition, which ONNX allows and TensorRT's parser does not take, gets the constant that it means.

Source: ONNX operator Loop, "trip count" (an empty `cond` is true); the parser's own behaviour (1.7.1.116): the body's
condition is then "not registered".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from qpipe_tensorrt.onnxgraph import OnnxGraph

_TRUE = "qpipe.always"


@contextmanager
def parsable(path: Path, graph: OnnxGraph, workdir: Path) -> Iterator[Path]:
    """The model, or a copy for as long as it is needed in which every Loop has a condition."""
    if not any(node.op == "Loop" for node in graph.nodes):
        yield path
        return
    import onnx

    model = onnx.load(path, load_external_data=False)
    if not _complete(model.graph):
        yield path
        return
    with TemporaryDirectory(dir=workdir) as folder:
        for other in path.resolve().parent.iterdir():  # external data lies beside the model
            if other.name != path.name:
                Path(folder, other.name).symlink_to(other)
        onnx.save(model, Path(folder, path.name))
        yield Path(folder, path.name)


def _complete(graph: onnx.GraphProto) -> bool:
    """Whether a Loop lacked its condition; all have one afterwards."""
    from onnx import TensorProto, helper

    from qpipe_tensorrt.onnxgraph import walk

    found = [node for node in walk(graph) if node.op_type == "Loop" and (len(node.input) < 2 or not node.input[1])]
    for node in found:
        given = list(node.input) or [""]
        del node.input[:]
        node.input.extend([given[0], _TRUE, *given[2:]])
    if found:
        graph.initializer.append(helper.make_tensor(_TRUE, TensorProto.BOOL, (), [True]))
    return bool(found)
