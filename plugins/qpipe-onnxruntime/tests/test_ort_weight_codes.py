"""Weight-only forms and recurrent networks: what onnxruntime runs them as, through the real recipes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from qpipe_onnxruntime.backend import OnnxRuntimeBackend
from qpipe_onnxruntime.mobile import OPERATORS

from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.schemes import ORT_ARM64, ORT_X86_VNNI
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

NETS = {
    "mixed": (
        "(float[N,16,8,8] x) => (float[N,M] y)",
        "c = Conv<kernel_shape=[3,3]>(x, w) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = MatMul(f, k)",
        {"w": (32, 16, 3, 3), "k": (32, 64)},
    ),
    "recurrent": (
        "(float[L,N,8] x) => (float[L,N,M] y)",
        "h, a, c = LSTM<hidden_size=16>(x, w, r) s = Squeeze(h, one) g, b = GRU<hidden_size=8>(s, v, u) "
        "t = Squeeze(g, one) y = MatMul(t, k)",
        {"w": (1, 64, 8), "r": (1, 64, 16), "v": (1, 24, 16), "u": (1, 24, 8), "k": (8, 64), "one": None},
    ),
}
NETS["chain"] = (
    "(float[N,16,8,8] x) => (float[N,16,6,6] y)",
    "a = Conv<kernel_shape=[1,1]>(x, w) b = Relu(a) c = Conv<kernel_shape=[3,3]>(b, k) d = Relu(c) y = Conv(d, v)",
    {"w": (16, 16, 1, 1), "k": (16, 16, 3, 3), "v": (16, 16, 1, 1)},
)
INT4 = StageSpec(name="quantize", params={"overrides": [{"match": "*", "weights": "int4"}]})
STATIC_INT4 = Recipe(name="int4-static", stages=(StageSpec(name="calibrate"), INT4))


@pytest.fixture
def placement(tmp_path):
    def build(net: str, recipe: Recipe, scheme: Scheme = ORT_X86_VNNI, **options: bool):
        head, body, weights = NETS[net]
        graph = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {head} {{ {body} }}')
        for number, node in enumerate(graph.graph.node):
            node.name = f"{node.op_type}_{number}"
        random = np.random.default_rng(0)
        for name, shape in weights.items():
            array = random.normal(size=shape).astype(np.float32) * 0.2 if shape else np.array([1])
            graph.graph.initializer.append(numpy_helper.from_array(array, name))
        onnx.save(graph, tmp_path / "float.onnx")
        model = read_model(tmp_path / "float.onnx", name=net, origin="test")
        shape = (5, 4, 8) if net == "recurrent" else (4, 16, 8, 8)
        rows = {"x": random.normal(size=shape).astype(np.float32)}
        (tmp_path / "stages").mkdir()
        (tmp_path / "engine").mkdir()
        ready = prepare(model, recipe, scheme, lambda: iter([rows]), tmp_path / "stages", None, Silent())
        target = Target(name="local", backend="onnxruntime", scheme=scheme.name, options=options)
        return OnnxRuntimeBackend().build(ready, target, tmp_path / "engine", Silent()).placement

    return build


def test_an_lstm_runs_on_integers_and_a_gru_stays_float(placement):
    found = placement("recurrent", builtin_recipe("dynamic", ORT_X86_VNNI))
    kernels = dict(found.kernels)
    assert kernels["com.microsoft.DynamicQuantizeLSTM"] == 1
    assert found.integer == 2
    [left] = found.left_in_float
    assert (left.op, left.reason) == ("GRU", "onnxruntime has no dynamically quantized kernel for GRU, only for LSTM")


def test_static_quantization_says_why_recurrent_nodes_stay_float(placement):
    found = placement("recurrent", builtin_recipe("int8", ORT_X86_VNNI))
    assert {node.op: node.reason for node in found.left_in_float} == {
        "LSTM": "onnxruntime has an integer LSTM in dynamic quantization alone",
        "GRU": "onnxruntime has no integer kernel for GRU",
    }


def test_codebooks_are_decoded_at_load_and_count_as_float(placement):
    found = placement("mixed", builtin_recipe("kmeans", ORT_X86_VNNI))
    assert found.integer == 0
    assert {node.op for node in found.left_in_float} == {"Conv", "MatMul"}
    assert all("k-means codes, decoded at load" in node.reason for node in found.left_in_float)
    assert not {"BitShift", "Gather", "Mod"} & set(dict(found.kernels))


def test_int4_blocks_of_a_matmul_become_a_kernel_and_those_of_a_conv_do_not(placement):
    found = placement("mixed", STATIC_INT4)
    assert dict(found.kernels)["com.microsoft.MatMulNBits"] == 1
    assert found.integer == 1
    [left] = found.left_in_float
    assert (left.op, left.reason) == ("Conv", "its weights are int4, decoded at every run: it computes in float32")


WIDENED = "{} widens its weights at every run: it computes in float32{}"
BLOCKS = WIDENED.format("MatMulNBits", " (accuracy_level 4: in int8)")


@pytest.mark.parametrize(
    ("recipe", "params", "integer", "reasons"),
    [
        ("int4", {}, 0, [BLOCKS]),
        ("int4", {"accuracy_level": 4}, 1, []),
        ("nf4", {}, 0, [WIDENED.format("MatMulBnb4", "")]),
        ("weight-only-int8", {}, 0, [BLOCKS]),
    ],
)
def test_small_weights_count_as_integers_where_integers_are_multiplied(placement, recipe, params, integer, reasons):
    (stage,) = builtin_recipe(recipe, ORT_X86_VNNI).stages
    stage = StageSpec(name=stage.name, params=stage.params | params)
    found = placement("mixed", Recipe(name=recipe, stages=(stage,)))
    assert found.integer == integer
    assert [node.reason for node in found.left_in_float if node.op == "MatMul"] == reasons


@pytest.mark.parametrize("scheme", [ORT_X86_VNNI, ORT_ARM64], ids=lambda scheme: scheme.name)
def test_a_convolution_that_is_kept_in_float_is_in_float_between_integers_too(placement, scheme, tmp_path):
    """onnxruntime 1.32 would quantize its weights when it loads the graph, with one scale for all channels."""
    held = StageSpec(name="quantize", params={"keep_float": ["Conv_2"]})
    recipe = Recipe(name="held", stages=(StageSpec(name="calibrate"), held))
    found = placement("chain", recipe, scheme, mobile=True)
    assert (found.integer, found.float) == (2, 1)
    assert [node.name for node in found.left_in_float] == ["Conv_2"]
    assert dict(found.kernels)["com.microsoft.QLinearConv"] == 2
    ran = {one.node: one.kernel for one in found.nodes}
    assert ran["Conv_2"].rpartition(".")[2] == "Conv"
    assert ran["Relu_3"] == "QuantizeLinear"  # which saturates at zero
    assert ";Conv{" in (tmp_path / "engine" / OPERATORS).read_text()  # and so it is in the file for phones


def test_a_relu_in_float_has_the_kernel_that_does_it(placement):
    found = placement("mixed", Recipe(name="none", stages=()))
    ran = {one.node: one.kernel for one in found.nodes}
    assert ran["Relu_1"] == ran["Conv_0"]
