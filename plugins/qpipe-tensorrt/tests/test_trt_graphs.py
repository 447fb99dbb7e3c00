"""Graphs beyond the quantizer's own: they build with every product in int8, or are refused by the node's name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from qpipe_tensorrt.backend import TensorRT

from qpipe.errors import BuildError
from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.testing.progress import Silent

CONV = "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w, b) r = Relu(c)"
W = {"w": (8, 3, 3, 3), "b": (8,)}
IMAGE = "(float[N,3,8,8] x) => (float[N,C,H,W] y)"
IDS = "(int64[N,L] ids, bool[N,L] mask) => (float[N,M] y)"
UNET = (
    f"{CONV} p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r) d = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(p, w2, b2) "
    "u = ConvTranspose<kernel_shape=[2,2],strides=[2,2]>(d, wu) k = Concat<axis=1>(u, r) "
    'z = Resize<mode="linear",coordinate_transformation_mode="half_pixel">(k, , twice) y = Conv(z, w4)'
)
TOKENS = (
    "e = Gather(emb, ids) q = MatMul(e, wq) k = MatMul(e, wk) v = MatMul(e, wv) kt = Transpose<perm=[0,2,1]>(k) "
    "s = MatMul(q, kt) um = Unsqueeze(mask, one) a = Where(um, s, least) p = Softmax<axis=-1>(a) o = MatMul(p, v) "
    "f = ReduceMean<axes=[1],keepdims=0>(o) y = Gemm(f, wh, bh)"
)
TWICE = np.array([1, 1, 2, 2], np.float32)
POOLED = f"{CONV} g = GlobalAveragePool(r) f = Flatten(g) h = Gemm(f, wh, bh)"
GOOD = {
    "unet": (
        IMAGE,
        UNET,
        {
            **W,
            "w2": (16, 8, 3, 3),
            "b2": (16,),
            "wu": (16, 8, 2, 2),
            "w4": (2, 16, 1, 1),
            "twice": TWICE,
        },
        3,
    ),
    "int64-ids-and-bool-mask": (
        IDS,
        TOKENS,
        {
            **dict.fromkeys(("wq", "wk", "wv"), (16, 16)),
            "emb": (50, 16),
            "wh": (16, 4),
            "bh": (4,),
            "one": np.array([1]),
            "least": np.float32(-1e9),
        },
        6,
    ),
    "top-k": (
        "(float[N,3,8,8] x) => (float[N,5] y, int64[N,5] i)",
        f"{POOLED} y, i = TopK<axis=1>(h, five)",
        {**W, "wh": (8, 10), "bh": (10,), "five": np.array([5])},
        2,
    ),
    **{
        f"opset-{opset}": (
            "(float[N,3,8,8] x) => (float[N,M] y)",
            f"{POOLED} y = Softmax<axis=1>(h)",
            {**W, "wh": (8, 10), "bh": (10,)},
            2,
        )
        for opset in (11, 22)
    },
}
REFUSED = {
    "RoiAlign": ("y = RoiAlign(r, rois, first)", {"rois": (1, 4), "first": np.array([0])}),
    "Det": ("y = Det(r)", {}),
    "Compress": ("y = Compress<axis=1>(r, kept)", {"kept": np.array([True, False])}),
    "Dropout": ("y = Dropout(r, half, yes)", {"half": np.float32(0.5), "yes": np.array(True)}),
}


def model_of(head, body, weights, opset=17):
    made = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {head} {{ {body} }}')
    random = np.random.default_rng(0)
    for name, given in weights.items():
        value = (random.normal(size=given) / 4).astype(np.float32) if isinstance(given, tuple) else np.asarray(given)
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    for number, node in enumerate(made.graph.node):
        node.name = f"{node.op_type}_{number}"
    return made


def rows_of(model):
    random = np.random.default_rng(1)
    if model.graph.input[0].name == "ids":
        return {"ids": random.integers(0, 50, (4, 7)), "mask": random.random((4, 7)) > 0.2}
    return {"x": random.normal(size=(4, 3, 8, 8)).astype(np.float32)}


@pytest.fixture
def made(rtx, target, tmp_path, progress):
    def make(model, recipe):
        onnx.save(model, tmp_path / "float.onnx")
        known, scheme = read_model(tmp_path / "float.onnx", name="m", origin="test"), TensorRT().scheme(target("8.9"))
        (tmp_path / "stages").mkdir()
        (tmp_path / "engine").mkdir()
        ready = prepare(
            known,
            builtin_recipe(recipe, scheme),
            scheme,
            lambda: iter([rows_of(model)]),
            tmp_path / "stages",
            None,
            Silent(),
        )
        return TensorRT().build(ready, target("8.9"), tmp_path / "engine", progress)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", GOOD)
def test_every_product_but_a_transposed_convolution_is_int8(made, name):
    head, body, weights, products = GOOD[name]
    opset = int(name.partition("opset-")[2] or 17)
    placement = made(model_of(head, body, weights, opset), "int8").placement
    assert placement.integer == products
    assert {node.op for node in placement.left_in_float} <= {"ConvTranspose"}


@pytest.mark.slow
@pytest.mark.parametrize("op", REFUSED)
def test_an_operator_that_tensorrt_has_not_is_named(made, op):
    body, weights = REFUSED[op]
    with pytest.raises(BuildError, match=rf"TensorRT cannot parse node `{op}_2` \({op}\)") as error:
        made(model_of(IMAGE, f"{CONV} {body}", {**W, **weights}), "none")
    assert "compute it beside the engine" in error.value.hint
