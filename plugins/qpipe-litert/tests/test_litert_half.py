"""Constants in float16: what is one in value is stored as one, what was kept in float32 stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import Model, ModelT, TensorType
from numpy.typing import NDArray
from qpipe_litert.convert import Converted
from qpipe_litert.flatbuffer_edit import store_half
from qpipe_litert.interpreter import invoke, open_interpreter

Floats = NDArray[np.float32]


def opened(data: bytes) -> ModelT:
    return ModelT.InitFromObj(Model.GetRootAs(data, 0))


def packed(model: ModelT) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def answer(data: bytes, rows: Floats, path: Path) -> Floats:
    path.write_bytes(data)
    return np.asarray(invoke(open_interpreter(path), (rows,))[0])


def weights(model: ModelT) -> list[int]:
    """Tensors of convolutions' and products' weights, the largest first."""
    graph = model.subgraphs[0]
    found = [
        i for i, one in enumerate(graph.tensors) if len(one.shape) > 1 and model.buffers[one.buffer].data is not None
    ]
    return sorted((i for i in found if graph.tensors[i].type == 0), key=lambda i: -np.prod(graph.tensors[i].shape))


@pytest.fixture
def rounded(conv_float: Converted) -> tuple[bytes, str]:
    """The float file with its largest weight rounded to float16's values, and that weight's name."""
    model = opened(conv_float.path.read_bytes())
    tensor = model.subgraphs[0].tensors[weights(model)[0]]
    values = np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes(), np.float32)
    model.buffers[tensor.buffer].data = np.frombuffer(values.astype(np.float16).astype(np.float32).tobytes(), np.uint8)
    return packed(model), tensor.name.decode()


def test_a_weight_that_is_half_in_value_is_stored_so_and_changes_no_answer(
    rounded: tuple[bytes, str], tmp_path: Path
) -> None:
    data, name = rounded
    made = store_half(data)
    halves = [one.name.decode() for one in opened(made).subgraphs[0].tensors if one.type == TensorType.FLOAT16]
    assert halves == [f"{name}_float16"]  # others have values that float16 has not: they were kept
    size = np.prod(next(one.shape for one in opened(made).subgraphs[0].tensors if one.type == TensorType.FLOAT16))
    assert len(data) - len(made) == pytest.approx(2 * size, abs=400)
    graph = opened(data).subgraphs[0]
    rows = np.random.default_rng(0).normal(size=graph.tensors[graph.inputs[0]].shape).astype(np.float32)
    np.testing.assert_array_equal(answer(made, rows, tmp_path / "made"), answer(data, rows, tmp_path / "data"))


def test_a_file_without_such_values_stays_as_it_is(conv_float: Converted) -> None:
    data = conv_float.path.read_bytes()
    before, after = opened(data).subgraphs[0], opened(store_half(data)).subgraphs[0]
    assert [(one.name, one.type) for one in after.tensors] == [(one.name, one.type) for one in before.tensors]
    assert len(after.operators) == len(before.operators)
