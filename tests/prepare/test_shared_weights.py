"""Weights that stand in a graph once and are read many times: tied embeddings, and layers that share their weights."""

import numpy as np
import onnx
import pytest
from networks import run, sqnr_db, write_network

from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.testing.progress import Silent

HEAD = "(int64[N,S] ids) => (float[N,S,600] y)"
TIED = {
    "transposed": "x = Gather(t, ids) h = MatMul(x, w) a = Tanh(h) u = Transpose<perm=[1,0]>(t) y = MatMul(a, u)",
    "gemm": "x = Gather(t, ids) h = MatMul(x, w) a = Tanh(h) f = Reshape(a, rows) g = Gemm<transB=1>(f, t) "
    "s = Shape(ids) o = Concat<axis=0>(s, last) y = Reshape(g, o)",
}
ARRAYS = {"t": (600, 64), "w": (64, 64), "rows": np.array([-1, 64]), "last": np.array([600])}


def drawn(arrays):
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(one).astype(np.float32) * 0.1 if isinstance(one, tuple) else one
        for name, one in arrays.items()
    }


def prepared(tmp_path, path, recipe, rows):
    model = read_model(path, name="m", origin="")
    return model, prepare(
        model, builtin_recipe(recipe, ORT_X86_VNNI), ORT_X86_VNNI, lambda: iter([rows]), tmp_path / "w", None, Silent()
    )


@pytest.mark.parametrize(
    ("recipe", "ratio", "decibel"),
    [("int8", 0.6, 25), ("dynamic", 0.55, 25), ("int4", 0.45, 12), ("nf4", 0.45, 12), ("weight-only-int8", 0.6, 30)],
)
@pytest.mark.parametrize("how", TIED)
def test_a_table_that_is_the_output_layer_too_is_small_in_both(tmp_path, how, recipe, ratio, decibel):
    """It stayed float32: as a table because a product reads it, as a matrix because it is transposed first."""
    path = write_network(tmp_path / "m.onnx", HEAD, TIED[how], drawn(ARRAYS))
    rows = {"ids": np.random.default_rng(1).integers(0, 600, (4, 8))}
    model, found = prepared(tmp_path, path, recipe, rows)
    assert found.deployable.size_bytes / model.file.size_bytes < ratio
    assert sqnr_db(run(path, rows)[0], run(found.deployable.path, rows)[0]) > decibel
    kinds = [item.data_type for item in onnx.load(found.deployable.path).graph.initializer if np.prod(item.dims) > 4096]
    assert onnx.TensorProto.FLOAT not in kinds


@pytest.mark.parametrize("recipe", ["int8", "dynamic", "int4", "nf4", "weight-only-int8"])
def test_layers_that_share_a_weight_go_on_sharing_it(tmp_path, recipe):
    """Each had a copy of its own: a model of twelve such layers became larger than it was."""
    body = "x0 = Identity(x) " + " ".join(f"h{i} = MatMul(x{i}, w) x{i + 1} = Tanh(h{i})" for i in range(6))
    path = write_network(
        tmp_path / "m.onnx",
        "(float[N,128] x) => (float[N,128] y)",
        f"{body} y = Identity(x6)",
        drawn({"w": (128, 128)}),
    )
    rows = {"x": np.random.default_rng(1).standard_normal((8, 128)).astype(np.float32)}
    model, found = prepared(tmp_path, path, recipe, rows)
    assert found.deployable.size_bytes / model.file.size_bytes < 0.5
    assert sqnr_db(run(path, rows)[0], run(found.deployable.path, rows)[0]) > 10
