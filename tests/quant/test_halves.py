"""Models that come in float16 or bfloat16."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from networks import run, sqnr_db, write_network
from onnx import TensorProto

from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.testing.progress import Silent

BODY = (
    "n = Cast<to=1>(x) q = ReduceSum<keepdims=1>(n, last) p = Cast<to={code}>(q) m = MatMul(x, w) a = Add(m, p) "
    "t = Greater(a, zero) b = Where(t, a, zero) f = ReduceMax<keepdims=0>(x) c = Greater(f, far) "
    "i = If(c) <then_branch = g () => ({kind}[N,48] u) {{ u = Neg(b) }}, "
    "else_branch = h () => ({kind}[N,48] v) {{ v = MatMul(b, k) }}> y = MatMul(i, o)"
)


def drawn(*shape):
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.2).astype(np.float32)


def write(path, kind, dtype):
    arrays = {"w": drawn(64, 48), "k": drawn(48, 48), "o": drawn(48, 32), "zero": np.zeros(()), "far": np.array(1e4)}
    halves = {name: array.astype(dtype) for name, array in arrays.items()}
    body = BODY.format(kind=kind, code=getattr(TensorProto, kind.upper()))
    return write_network(path, f"({kind}[N,64] x) => ({kind}[N,32] y)", body, {**halves, "last": np.array([1])})


@pytest.mark.parametrize(
    ("recipe", "decibel"),
    [("int8", 25), ("dynamic", 25), ("int4", 12), ("nf4", 12), ("weight-only-int8", 30), ("kmeans", 18), ("fp16", 55)],
)
def test_every_recipe_takes_a_model_in_float16(tmp_path, recipe, decibel):
    """They were refused with the advice to use another recipe, which refused them too."""
    path = write(tmp_path / "m.onnx", "float16", np.float16)
    rows = {"x": drawn(16, 64).astype(np.float16)}
    model = read_model(path, name="m", origin="")
    scheme = ORT_X86_VNNI
    found = prepare(model, builtin_recipe(recipe, scheme), scheme, lambda: iter([rows]), tmp_path / "w", None, Silent())
    before, after = run(path, rows)[0], run(found.deployable.path, rows)[0]
    assert after.dtype == np.float16
    assert sqnr_db(before.astype(np.float32), after.astype(np.float32)) > decibel


def test_a_model_in_bfloat16_computes_what_its_weights_do(tmp_path):
    save_graph(open_graph(write(tmp_path / "m.onnx", "bfloat16", ml_dtypes.bfloat16)), tmp_path / "wide.onnx")
    onnx.checker.check_model(tmp_path / "wide.onnx", full_check=True)
    wide = onnx.load(tmp_path / "wide.onnx").graph
    assert [value.type.tensor_type.elem_type for value in (*wide.input, *wide.output)] == [TensorProto.BFLOAT16] * 2
    assert all(tensor.data_type != TensorProto.BFLOAT16 for tensor in wide.initializer)
    weights = [drawn(*shape).astype(ml_dtypes.bfloat16) for shape in ((64, 48), (48, 48), (48, 32))]
    for tensor, weight in zip([one for one in wide.initializer if len(one.dims) == 2], weights, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weight.astype(np.float32))
