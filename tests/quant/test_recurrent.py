"""LSTMs as onnxruntime's DynamicQuantizeLSTM; GRUs and what the kernel does not take stay float, with a reason."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import run as run_on
from networks import sqnr_db, write_network
from onnx import numpy_helper

from qpipe.errors import QuantizationError
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.options import QuantOptions
from qpipe.quant.rendering.dynamic import plan_dynamic, render_dynamic
from qpipe.quant.schemes import LITERT, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI

HIDDEN, WIDTH = 48, 40
PER_TENSOR = replace(ORT_X86_VNNI, name="per-tensor", per_channel=False)


def write(path, body, weights, head=f"(float[L,N,{WIDTH}] x) => (float[L,D,N,M] y, float[D,N,M] h, float[D,N,M] c)"):
    random = np.random.default_rng(0)
    arrays = {
        name: random.uniform(-0.2, 0.2, value).astype(np.float32) if isinstance(value, tuple) else value
        for name, value in weights.items()
    }
    return write_network(path, head, body, arrays)


def lstm(path, directions=1, attributes="", inputs="x, w, r, b", **more):
    kind = {1: "forward", 2: "bidirectional"}[directions]
    shapes = {
        "w": (directions, 4 * HIDDEN, WIDTH),
        "r": (directions, 4 * HIDDEN, HIDDEN),
        "b": (directions, 8 * HIDDEN),
    }
    body = f'y, h, c = LSTM<hidden_size={HIDDEN},direction="{kind}"{attributes}>({inputs})'
    return write(path, body, {**shapes, **more})


def run(path, count=3):
    return run_on(path, {"x": np.random.default_rng(1).standard_normal((12, count, WIDTH)).astype(np.float32)})


def quantized(path, scheme, folder):
    model = open_graph(path)
    plan = plan_dynamic(model, scheme)
    save_graph(render_dynamic(model, plan), folder / "dynamic.onnx")
    return plan, folder / "dynamic.onnx"


@pytest.mark.parametrize(
    ("scheme", "least_db"),
    [(ORT_X86_VNNI, 38), (ORT_X86_AVX2, 35), (PER_TENSOR, 35)],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_is_close_and_a_third_of_the_size(tmp_path, scheme, least_db, directions):
    path = lstm(tmp_path / "float.onnx", directions)
    plan, made = quantized(path, scheme, tmp_path)
    assert [(choice.op, choice.quantized) for choice in plan.nodes] == [("LSTM", True)]
    assert {spec.tensor for spec in plan.weights} == {"w", "r"}
    graph = onnx.load(made).graph
    assert [node.op_type for node in graph.node] == ["DynamicQuantizeLSTM"]
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weight, scale = arrays[graph.node[0].input[1]], arrays[graph.node[0].input[8]]
    assert weight.shape == (directions, WIDTH, 4 * HIDDEN)
    assert scale.shape == ((directions, 4 * HIDDEN) if scheme.per_channel else (directions,))
    assert np.abs(weight.astype(int)).max() == 2 ** (scheme.weight_bits - 1) - 1
    for old, new in zip(run(path), run(made), strict=True):
        assert new.shape == old.shape
        assert sqnr_db(old, new) >= least_db
    assert made.stat().st_size < 0.33 * path.stat().st_size


@pytest.mark.parametrize("attributes", [",clip=0.5", ",input_forget=0", ',activations=["Sigmoid","Tanh","Relu"]'])
def test_attributes_are_kept(tmp_path, attributes):
    path = lstm(tmp_path / "float.onnx", 1, attributes)
    for old, new in zip(run(path), run(quantized(path, ORT_X86_VNNI, tmp_path)[1]), strict=True):
        assert sqnr_db(old, new) >= 30


def test_initial_states_and_lengths_are_passed_on(tmp_path):
    path = lstm(
        tmp_path / "float.onnx",
        inputs="x, w, r, b, lengths, first, cell, p",
        lengths=np.array([12, 5, 9], np.int32),
        first=(1, 3, HIDDEN),
        cell=(1, 3, HIDDEN),
        p=(1, 3 * HIDDEN),
    )
    for old, new in zip(run(path), run(quantized(path, ORT_X86_VNNI, tmp_path)[1]), strict=True):
        assert sqnr_db(old, new) >= 35


def test_an_lstm_whose_last_outputs_nobody_reads(tmp_path):
    head = f"(float[L,N,{WIDTH}] x) => (float[D,N,M] h)"
    weights = {"w": (1, 4 * HIDDEN, WIDTH), "r": (1, 4 * HIDDEN, HIDDEN)}
    path = write(tmp_path / "float.onnx", f", h = LSTM<hidden_size={HIDDEN}>(x, w, r)", weights, head)
    assert sqnr_db(run(path)[0], run(quantized(path, ORT_ARM64, tmp_path)[1])[0]) >= 38


def test_two_lstms_that_share_weights(tmp_path):
    kind = f"LSTM<hidden_size={WIDTH}>"
    body = f"d, h1, c1 = {kind}(x, w, r) s = Squeeze(d, one) y, h, c = {kind}(s, w, r)"
    weights = {"w": (1, 4 * WIDTH, WIDTH), "r": (1, 4 * WIDTH, WIDTH), "one": np.array([1])}
    path = write(tmp_path / "float.onnx", body, weights)
    plan, made = quantized(path, ORT_X86_VNNI, tmp_path)
    assert len(plan.weights) == 4
    assert {"w", "r"}.isdisjoint(tensor.name for tensor in onnx.load(made).graph.initializer)
    for old, new in zip(run(path), run(made), strict=True):
        assert sqnr_db(old, new) >= 30


GRU = f"h, a = GRU<hidden_size={HIDDEN}>(x, w, r)"
GRU_WEIGHTS = {"w": (1, 3 * HIDDEN, WIDTH), "r": (1, 3 * HIDDEN, HIDDEN)}


def test_a_gru_stays_float_beside_a_matmul_that_does_not(tmp_path):
    head = f"(float[L,N,{WIDTH}] x) => (float[L,N,M] y)"
    body = f"{GRU} s = Squeeze(h, one) y = MatMul(s, k)"
    path = write(tmp_path / "float.onnx", body, {**GRU_WEIGHTS, "k": (HIDDEN, 8), "one": np.array([1])}, head)
    plan, made = quantized(path, ORT_X86_VNNI, tmp_path)
    [left] = plan.left_in_float()
    assert (left.op, left.reason) == ("GRU", "onnxruntime has no dynamically quantized kernel for GRU, only for LSTM")
    assert sqnr_db(run(path)[0], run(made)[0]) >= 30


def test_a_gru_alone_is_refused_by_name(tmp_path):
    head = f"(float[L,N,{WIDTH}] x) => (float[L,D,N,M] h, float[D,N,M] a)"
    path = write(tmp_path / "float.onnx", GRU, GRU_WEIGHTS, head)
    with pytest.raises(QuantizationError, match=r"'.+' \(GRU\): onnxruntime has no dynamically quantized kernel"):
        plan_dynamic(open_graph(path), ORT_X86_VNNI)


def test_batch_first_lstms_are_refused_by_name(tmp_path):
    head = f"(float[N,L,{WIDTH}] x) => (float[N,L,D,M] y, float[N,D,M] h, float[N,D,M] c)"
    weights = {"w": (1, 4 * HIDDEN, WIDTH), "r": (1, 4 * HIDDEN, HIDDEN)}
    path = write(tmp_path / "float.onnx", f"y, h, c = LSTM<hidden_size={HIDDEN},layout=1>(x, w, r)", weights, head)
    with pytest.raises(QuantizationError, match="batch first"):
        plan_dynamic(open_graph(path), ORT_X86_VNNI)


def test_weights_that_are_computed_are_refused_by_name(tmp_path):
    head = (
        f"(float[L,N,{WIDTH}] x, float[1,{4 * HIDDEN},{WIDTH}] w) => (float[L,D,N,M] y, float[D,N,M] h, float[D,N,M] c)"
    )
    body = f"y, h, c = LSTM<hidden_size={HIDDEN}>(x, w, r)"
    path = write(tmp_path / "float.onnx", body, {"r": (1, 4 * HIDDEN, HIDDEN)}, head)
    with pytest.raises(QuantizationError, match="weights are not constant"):
        plan_dynamic(open_graph(path), ORT_X86_VNNI)


def test_broken_weights_name_the_node(tmp_path):
    path = lstm(tmp_path / "float.onnx", r=np.full((1, 4 * HIDDEN, HIDDEN), np.nan, np.float32))
    with pytest.raises(QuantizationError, match=r"node '.+' \(LSTM\) has NaN or infinite weights"):
        plan_dynamic(open_graph(path), ORT_X86_VNNI)


def test_the_recipe_can_keep_an_lstm_in_float(tmp_path):
    path = lstm(tmp_path / "float.onnx")
    with pytest.raises(QuantizationError, match="keeps 'op:LSTM' in float"):
        plan_dynamic(open_graph(path), ORT_X86_VNNI, QuantOptions(keep_float=("op:LSTM",)))


def test_schemes_without_the_kernel_do_not_speak_of_lstms(tmp_path):
    scheme = replace(LITERT, dynamic_ops=("MatMul",))
    with pytest.raises(QuantizationError, match="no node of this graph") as caught:
        plan_dynamic(open_graph(lstm(tmp_path / "float.onnx")), scheme)
    assert "LSTM" not in caught.value.message
