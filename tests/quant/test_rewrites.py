"""Laws as properties: rewrites keep float outputs, and a rendered graph keeps its scheme's scales and zero points."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import write_network
from onnx import TensorProto, helper, numpy_helper

from qpipe.quant.calibration.calibrate import batches_of
from qpipe.quant.check import TOLERANCE, relative_difference, run_float
from qpipe.quant.fold import fold
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.schemes import LITERT, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI, TENSORRT
from qpipe.quant.static import quantize_static

CHANNELS = 6
STEPS = (
    "conv",
    "depthwise",
    "transposed",
    "norm",
    "pad",
    "scale",
    "shift",
    "divide",
    "subtract",
    "relu",
    "clip",
    "same",
)


class Chain:
    """A network of 6 channels, step by step; every array comes from one seed."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants, self.last = [], [], "x"

    def add(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def draw(self, *shape, low=-1.0, high=1.0):
        return self.add(self.random.uniform(low, high, shape).astype(np.float32))

    def op(self, kind, *inputs, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [name], name=name, **attributes))
        self.last = name

    def step(self, kind):
        each = (1, CHANNELS, 1, 1)
        match kind:
            case "conv":
                bias = [self.draw(CHANNELS)] if self.random.random() < 0.5 else []
                self.op("Conv", self.draw(CHANNELS, CHANNELS, 3, 3), *bias, pads=[1] * 4, kernel_shape=[3, 3])
            case "depthwise":
                self.op("Conv", self.draw(CHANNELS, 1, 1, 1), group=CHANNELS, kernel_shape=[1, 1])
            case "transposed":
                self.op("ConvTranspose", self.draw(CHANNELS, CHANNELS, 1, 1), kernel_shape=[1, 1])
            case "norm":
                shift = [self.draw(CHANNELS) for _ in range(3)]
                self.op("BatchNormalization", *shift, self.draw(CHANNELS, low=0.5, high=2.0))
            case "pad":
                self.op("Pad", self.add(np.array([0, 0, 1, 0, 0, 0, 0, 1])))
            case "scale":
                self.op("Mul", self.draw(*each))
            case "shift":
                self.op("Add", self.draw(CHANNELS, 1, 1))
            case "divide":
                self.op("Div", self.draw(*each, low=0.5, high=2.0))
            case "subtract":
                self.op("Sub", self.draw(*each))
            case "relu":
                self.op("Relu")
            case "clip":
                self.op("Clip", self.add(np.float32(-0.5)), self.add(np.float32(2)))
            case "same":
                self.op("Identity")

    def save(self, path):
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, 6, 6])],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None)],
            self.constants,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=7), st.integers(0, 2**16))
@settings(max_examples=60)
def test_folding_keeps_float_outputs(tmp_path_factory, kinds, seed):
    chain = Chain(seed)
    for kind in kinds:
        chain.step(kind)
    model = open_graph(chain.save(tmp_path_factory.mktemp("chain") / "m.onnx"))
    before = model.clone()
    fold(model)
    rows = {"x": np.random.default_rng(seed).standard_normal((2, CHANNELS, 6, 6)).astype(np.float32)}
    [old], [new] = run_float(before, rows), run_float(model, rows)
    assert old.shape == new.shape
    assert relative_difference(np.asarray(old, np.float64), np.asarray(new, np.float64)) <= TOLERANCE
    assert len(list(model.graph)) <= len(list(before.graph))


def test_a_foldable_chain_becomes_one_node(tmp_path):
    chain = Chain(0)
    for kind in ("pad", "conv", "same", "norm", "scale", "shift"):
        chain.step(kind)
    model = open_graph(chain.save(tmp_path / "m.onnx"))
    assert fold(model)
    assert [node.op_type for node in model.graph] == ["Conv"]


@pytest.mark.parametrize(
    ("slices", "pads", "left", "strides"),
    [
        ([([0, 0], [9, 9], [2, 3], [2, 3])], [0, 1, 0, 0, 0, 2, 0, 0], ["Conv"], [2, 3]),
        ([([0], [2**40], [-2], [2]), ([0], [6], [3], [2])], [0, 0, 0, 0, 0, 2, 0, 0], ["Conv"], [2, 2]),
        ([([0], [4], [3], [1])], [0, 1, 0, 0, 0, 1, 0, 0], ["Slice", "Conv"], [1, 1]),
        ([([1], [9], [2], [2])], [0, 1, 0, 0, 0, 1, 0, 0], ["Slice", "Conv"], [1, 1]),
        ([([5], [-9], [2], [-1])], [0, 1, 0, 0, 0, 1, 0, 0], ["Slice", "Conv"], [1, 1]),
        ([([0], [9], [1], [2])], [0, 1, 0, 0, 0, 1, 0, 0], ["Slice", "Conv"], [1, 1]),
        ([([0], [9], [2], [2])], [0, 1, 0, 1, 0, 1, 0, 0], ["Slice", "Pad"], None),
    ],
)
def test_a_shortcut_without_weights_becomes_one_convolution(tmp_path, slices, pads, left, strides):
    chain = Chain(0)
    for numbers in slices:
        chain.op("Slice", *(chain.add(np.array(part, np.int64)) for part in numbers))
    chain.op("Pad", chain.add(np.array(pads, np.int64)))
    model = open_graph(chain.save(tmp_path / "m.onnx"))
    before = model.clone()
    fold(model)
    nodes = list(model.graph)
    assert [node.op_type for node in nodes] == left
    if strides is not None:
        assert list(nodes[-1].attributes["strides"].as_ints()) == strides
    rows = {"x": np.random.default_rng(0).standard_normal((2, CHANNELS, 6, 6)).astype(np.float32)}
    np.testing.assert_array_equal(run_float(before, rows)[0], run_float(model, rows)[0])


@pytest.mark.parametrize(("factors", "changed"), [("<alpha=0.5>", True), ("<beta=2.0>", True), ("", False)])
def test_a_changed_weight_is_told_so_that_outputs_are_compared(tmp_path, factors, changed):
    arrays = {"w": np.ones((4, 4), np.float32), "b": np.ones(4, np.float32)}
    body = f"r = Identity(x) y = Gemm{factors}(r, w, b)"
    model = open_graph(write_network(tmp_path / "m.onnx", "(float[N,4] x) => (float[N,4] y)", body, arrays))
    assert fold(model) is changed
    assert [node.op_type for node in model.graph] == ["Gemm"]


@pytest.mark.parametrize(("kind", "left"), [("Add", ["Conv"]), ("Div", ["Conv", "Div"])])
def test_zeros_are_added_and_never_divided_by(tmp_path, kind, left):
    chain = Chain(0)
    chain.step("conv")
    chain.op(kind, chain.add(np.zeros((1, CHANNELS, 1, 1), np.float32)))
    model = open_graph(chain.save(tmp_path / "m.onnx"))
    fold(model)
    assert [node.op_type for node in model.graph] == left


def network(path, seed):
    chain = Chain(seed)
    for kind in ("conv", "norm", "relu", "depthwise", "clip", "conv"):
        chain.step(kind)
    chain.op("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    chain.op("Flatten")
    chain.op("Gemm", chain.draw(CHANNELS * 9, 5), chain.draw(5))
    return chain.save(path)


def bounds(scheme):
    """(smallest, largest) of the scheme's activations as integers."""
    return (0, 255) if scheme.activation == "uint8" else (-128, 127)


@pytest.mark.parametrize(
    "scheme", [ORT_X86_VNNI, ORT_X86_AVX2, ORT_ARM64, TENSORRT, LITERT], ids=lambda scheme: scheme.name
)
@given(seed=st.integers(0, 2**16), offset=st.floats(-3, 3), spread=st.floats(0.01, 30))
@settings(max_examples=4)
def test_scales_and_zero_points_keep_the_laws_of_their_scheme(tmp_path_factory, scheme, seed, offset, spread):
    folder = tmp_path_factory.mktemp("laws")
    path = network(folder / "float.onnx", seed)
    random = np.random.default_rng(seed)
    rows = {"x": (random.standard_normal((8, CHANNELS, 6, 6)) * spread + offset).astype(np.float32)}
    found = quantize_static(path, lambda: batches_of(rows, 8), scheme)
    save_graph(found.qdq, folder / "qdq.onnx")
    graph = onnx.load(folder / "qdq.onnx").graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        scale, zero = arrays[node.input[1]], arrays[node.input[2]]
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
        if node.op_type == "QuantizeLinear":
            check_activation(scheme, scale, zero)
        elif node.input[0] in arrays:
            check_weight(scheme, arrays[node.input[0]], zero)
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm"} and len(node.input) > 2 and scheme.quantize_bias:
            data, weight, bias = (producers[name] for name in node.input)
            product = arrays[data.input[1]] * arrays[weight.input[1]]
            np.testing.assert_allclose(arrays[bias.input[1]], product, rtol=1e-6)
        if node.op_type == "MaxPool" and scheme.quantize_outputs and node.output[0] in readers(graph):
            [after] = readers(graph)[node.output[0]]
            assert list(after.input[1:3]) == list(producers[node.input[0]].input[1:3])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(folder / "qdq.onnx"), options, providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(None, rows)[0]).all()


def readers(graph):
    found = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def check_activation(scheme, scale, zero):
    assert scale.shape == zero.shape == ()
    smallest, largest = bounds(scheme)
    assert smallest <= int(zero) <= largest
    assert zero.dtype == np.dtype(scheme.activation)
    if scheme.activation_symmetric:
        assert int(zero) == 0


def check_weight(scheme, values, zero):
    assert not zero.any(), "weights and biases are symmetric"
    assert values.dtype in {np.dtype(np.int8), np.dtype(np.int32)}
    if values.dtype == np.int8:
        assert np.abs(values.astype(int)).max() == 2 ** (scheme.weight_bits - 1) - 1
