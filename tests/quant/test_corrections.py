"""Corrections of the float graph: cross-layer equalization, and ranges per channel from the one pass."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import run
from onnx import numpy_helper, parser

from qpipe.errors import QuantizationError
from qpipe.quant.calibration.calibrate import batches_of, calibrate
from qpipe.quant.calibration.observed import observed_tensors
from qpipe.quant.calibration.statistics import load_statistics, save_statistics
from qpipe.quant.check import check_same
from qpipe.quant.corrections.bias import correct_bias
from qpipe.quant.corrections.equalize import equalize, pairs
from qpipe.quant.graph import constant, open_graph, save_graph
from qpipe.quant.plan import make_plan
from qpipe.quant.ranges import RangeRule, find_channel_ranges, find_range
from qpipe.quant.rendering.render import quantized_weight
from qpipe.quant.schemes import ORT_X86_VNNI

HEAD = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,10,10] x) => (float[N,6] y) '
CHAIN = "{{ c = Conv<kernel_shape=[3,3]>(x, w0, b0) r = {between} y = {after} }}"
DEPTHWISE = (
    "{ c = Conv<kernel_shape=[1,1]>(x, w0, b0) r = Relu(c) d = Conv<group=8,kernel_shape=[3,3]>(r, w1, b1) "
    "s = LeakyRelu<alpha=0.1>(d) e = Conv<group=2,kernel_shape=[1,1]>(s, w2, b2) t = MaxPool<kernel_shape=[2,2]>(e) "
    "f = Flatten(t) g = Gemm<transB=1>(f, k0, k1) h = Relu(g) y = MatMul(h, o) }"
)
SIZES = {
    "w0": (8, 4, 1, 1),
    "b0": (8,),
    "w1": (8, 1, 3, 3),
    "b1": (8,),
    "w2": (6, 4, 1, 1),
    "b2": (6,),
    "k0": (10, 6 * 49),
    "k1": (10,),
    "o": (10, 6),
}


def build(path, body, sizes, values=None, head=HEAD):
    rng = np.random.default_rng(0)
    proto = parser.parse_model(head + body)
    for name, shape in sizes.items():
        array = rng.standard_normal(shape) * np.exp(rng.standard_normal((shape[0],) + (1,) * (len(shape) - 1)))
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for name, array in (values or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
    onnx.save(proto, path)
    return open_graph(path)


def rows(count=8):
    return np.random.default_rng(1).standard_normal((count, 4, 10, 10)).astype(np.float32)


def magnitudes(model, name):
    """Largest magnitude of the weights of each output and of each input channel, in the form [O, I/g, …]."""
    node = next(node for node in model.graph if len(node.inputs) > 1 and node.inputs[1].name == name)
    weight = np.abs(constant(node.inputs[1]))
    return weight.reshape(weight.shape[0], -1).max(axis=1), weight.max(axis=tuple(range(2, weight.ndim)))


def test_equalizing_keeps_the_outputs_and_evens_out_every_pair(tmp_path):
    model = build(tmp_path / "m.onnx", DEPTHWISE, SIZES)
    before = model.clone()
    done = equalize(model)
    assert len(done) == len(pairs(model.graph)) == 4
    assert check_same(before, model, {"x": rows()}, stage="equalize") < 1e-5
    first, _ = magnitudes(model, "w0")
    second, reads = magnitudes(model, "w1")
    _, third = magnitudes(model, "w2")
    np.testing.assert_allclose(first, reads[:, 0], rtol=0.01)
    np.testing.assert_allclose(second, np.concatenate([part.max(axis=0) for part in np.split(third, 2)]), rtol=0.01)
    gemm = np.abs(constant(next(node for node in model.graph if node.op_type == "Gemm").inputs[1]))
    np.testing.assert_allclose(magnitudes(model, "w2")[0], gemm.reshape(10, 6, 49).max(axis=(0, 2)), rtol=0.01)
    assert all(one.smallest > 0 and one.largest >= one.smallest for one in done)


def test_equalizing_twice_changes_nothing_more(tmp_path):
    model = build(tmp_path / "m.onnx", DEPTHWISE, SIZES)
    equalize(model)
    again = equalize(model)
    assert all(0.98 < one.smallest <= one.largest < 1.02 for one in again)


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ("Relu(c)", 1),
        ("Clip(c, zero)", 1),
        ("Clip(c, zero, infinite)", 1),
        ("Clip(c, zero, six)", 0),
        ("Clip(c, one, infinite)", 0),
        ("Sigmoid(c)", 0),
        ("Add(c, one)", 0),
    ],
)
def test_only_what_lets_a_factor_through_stands_in_a_pair(tmp_path, between, found):
    body = CHAIN.format(between=between, after="Conv<kernel_shape=[8,8]>(r, w1) ").replace("y = Conv", "z = Conv")
    body = body.replace(" }", " y = Flatten(z) }")
    values = {"zero": 0.0, "one": 1.0, "six": 6.0, "infinite": np.inf}
    model = build(tmp_path / "m.onnx", body, {"w0": (8, 4, 3, 3), "b0": (8,), "w1": (6, 8, 8, 8)}, values)
    before = model.clone()
    assert len(equalize(model)) == found
    assert check_same(before, model, {"x": rows()}) < 1e-5


def test_a_shared_activation_or_a_shared_weight_is_not_spoiled(tmp_path):
    body = (
        "{ c = Conv<kernel_shape=[1,1]>(x, w) r = Relu(c) d = Conv<kernel_shape=[1,1]>(r, w) s = Relu(d) a = Add(r, s) "
        "e = Conv<kernel_shape=[1,1]>(a, w) t = Relu(e) u = Conv<kernel_shape=[1,1]>(t, w) "
        "p = GlobalAveragePool(u) f = Flatten(p) y = Gemm(f, k) }"
    )
    model = build(tmp_path / "m.onnx", body, {"w": (4, 4, 1, 1), "k": (4, 6)})
    before = model.clone()
    done = equalize(model)
    assert len(done) == 2
    assert check_same(before, model, {"x": rows()}) < 1e-5


def test_equalizing_by_activations_evens_out_what_is_quantized_per_tensor(tmp_path):
    model = build(tmp_path / "m.onnx", DEPTHWISE, SIZES)
    before = model.clone()
    tensors = {"r": 1, "s": 1}
    item = calibrate(model, [{"x": rows(64)}], tensors)
    found = {one.tensor: np.maximum(-one.low, one.high) for one in item}
    done = equalize(model, found)
    assert len(done) == 2
    assert check_same(before, model, {"x": rows()}) < 1e-5
    after = calibrate(model, [{"x": rows(64)}], tensors).get("r")
    largest = np.maximum(-after.low, after.high)
    alive = largest > 0
    assert 1 < alive.sum() < 8, "a channel that Relu always closes keeps its factor"
    np.testing.assert_allclose(largest[alive], magnitudes(model, "w1")[1][:, 0][alive], rtol=0.01)
    np.testing.assert_array_equal(magnitudes(model, "w0")[0][~alive], magnitudes(before, "w0")[0][~alive])


def observed(tmp_path, *, channels):
    """The statistics of a 1×1 Conv's output over 96 rows in batches of several sizes, and the output itself."""
    body = "{ c = Conv<kernel_shape=[1,1]>(x, w0, b0) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, k) }"
    model = build(tmp_path / "m.onnx", body, {"w0": (8, 4, 1, 1), "b0": (8,), "k": (8, 6)})
    data = rows(96)
    weight, bias = (constant(next(iter(model.graph)).inputs[index]) for index in (1, 2))
    output = np.einsum("nihw,oi->nohw", data, weight[:, :, 0, 0]) + bias[:, None, None]
    parts = ({"x": part} for part in np.split(data, [7, 40]))
    return calibrate(model, parts, {"c": 1}, channels=channels, drawn_per_row=10**6).get("c"), output


@pytest.mark.parametrize("symmetric", [False, True])
def test_min_and_max_per_channel_are_those_of_the_tensor(tmp_path, symmetric):
    item, output = observed(tmp_path, channels=False)
    low, high = find_channel_ranges(item, RangeRule(method="minmax", symmetric=symmetric))
    bottom, top = np.minimum(output.min(axis=(0, 2, 3)), 0), np.maximum(output.max(axis=(0, 2, 3)), 0)
    if symmetric:
        bottom, top = -np.maximum(-bottom, top), np.maximum(-bottom, top)
    np.testing.assert_allclose(low, bottom, atol=1e-5)
    np.testing.assert_allclose(high, top, atol=1e-5)


def test_drawn_vectors_are_the_channels_of_the_tensor(tmp_path):
    item, output = observed(tmp_path, channels=True)
    every = output.transpose(0, 2, 3, 1).reshape(-1, 8)
    assert item.vectors.shape == every.shape
    np.testing.assert_allclose(item.vectors, every, atol=1e-4)
    assert item.bins.sum() == item.drawn == every.size


@pytest.mark.parametrize("percentile", [90.0, 99.0])
def test_percentiles_per_channel_leave_their_share_outside(tmp_path, percentile):
    item, output = observed(tmp_path, channels=True)
    low, high = find_channel_ranges(item, RangeRule(method="percentile", percentile=percentile))
    values = output.transpose(1, 0, 2, 3).reshape(8, -1)
    both = (values.min(axis=1) < 0) & (values.max(axis=1) > 0)
    assert 1 < both.sum() < 8
    share = np.where(both, (100 - percentile) / 200, (100 - percentile) / 100)
    for outside, end in ((values < low[:, None], low), (values > high[:, None], high)):
        # where an end is zero, zero's place in the range sets it
        np.testing.assert_allclose(outside.mean(axis=1)[end != 0], share[end != 0], atol=0.001)


def rounding_error(values, low, high):
    step = (high - low) / 255
    return float(np.square(np.clip(np.rint(values / step) * step, low, high) - values).mean())


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_mse_range_of_each_channel_is_near_the_best_of_a_grid(tmp_path, symmetric):
    item, output = observed(tmp_path, channels=True)
    low, high = find_channel_ranges(item, RangeRule(method="mse", symmetric=symmetric))
    for channel, values in enumerate(output.transpose(1, 0, 2, 3).reshape(8, -1)):
        bottom, top = min(values.min(), 0), max(values.max(), 0)
        if symmetric:
            bottom, top = -max(-bottom, top), max(-bottom, top)
        grid = [rounding_error(values, bottom * part, top * part) for part in np.linspace(0.3, 1, 30)]
        assert rounding_error(values, low[channel], high[channel]) <= 1.1 * min(grid)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_channels_that_are_alike_have_the_range_of_the_whole_tensor(tmp_path, method):
    body = "{ c = Conv<kernel_shape=[1,1]>(x, w0) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, k) }"
    same = np.array([0.5, -0.2, 0.9, 0.1]).reshape(1, 4, 1, 1).repeat(2, 0)
    model = build(tmp_path / "m.onnx", body, {"k": (2, 6)}, {"w0": same})
    item = calibrate(model, batches_of({"x": rows(32)}, 8), {"c": 1}, channels=True).get("c")
    rule = RangeRule(method=method, percentile=99.0)
    low, high = find_channel_ranges(item, rule)
    np.testing.assert_allclose(low, find_range(item, rule)[0], rtol=0.03)
    np.testing.assert_allclose(high, find_range(item, rule)[1], rtol=0.03)


def test_ranges_per_channel_survive_the_store(tmp_path):
    body = "{ c = Conv<kernel_shape=[1,1]>(x, w0) p = GlobalAveragePool(c) f = Flatten(p) y = Gemm(f, k) }"
    model = build(tmp_path / "m.onnx", body, {"w0": (8, 4, 1, 1), "k": (8, 6)})
    found = calibrate(model, batches_of({"x": rows(32)}, 8), {"c": 1}, channels=True)
    save_statistics(found, tmp_path)
    again = load_statistics(tmp_path).get("c")
    np.testing.assert_array_equal(
        find_channel_ranges(again, RangeRule()), find_channel_ranges(found.get("c"), RangeRule())
    )


def test_methods_that_need_vectors_say_so(tmp_path):
    item, _ = observed(tmp_path, channels=False)
    with pytest.raises(QuantizationError, match="'c' has no channel vectors"):
        find_channel_ranges(item, RangeRule(method="entropy"))


@pytest.mark.parametrize(
    "attributes",
    ["group=1", "pads=[1,1,1,1]", "pads=[2,0,1,1], strides=[2,1], dilations=[1,2]", "group=2, pads=[0,2,0,0]"],
)
def test_corrected_biases_give_the_mean_outputs_back(tmp_path, attributes):
    """Exactly so where each channel is one number everywhere, though fewer taps meet it at padded borders."""
    inputs = 2 if "group=2" in attributes else 4
    head = HEAD.replace("float[N,6] y", "float[N,6,H,W] y")
    body = f"{{ y = Conv<{attributes}>(x, w, b) }}"
    model = build(tmp_path / "float.onnx", body, {"w": (6, inputs, 3, 3), "b": (6,)}, head=head)
    levels = np.array([3, -1, 2, 5], np.float32)[:, None, None]
    batch = {"x": np.broadcast_to(levels, (8, 4, 10, 10)).copy()}
    scheme = replace(ORT_X86_VNNI, direct_channels=0)
    statistics = calibrate(model, iter([batch]), observed_tensors(model.graph, scheme))
    plan = make_plan(model, statistics, scheme)
    (node,), (weight,) = model.graph, plan.weights
    rounded = ir.tensor(quantized_weight([node], weight, plan).real(weight.axis))

    def means(path):
        return run(path, batch)[0].mean(axis=(0, 2, 3))

    wanted = means(tmp_path / "float.onnx")
    assert correct_bias(model, plan, statistics) == (node.name,)
    model.graph.initializers["w"].const_value = rounded
    save_graph(model, tmp_path / "corrected.onnx")
    np.testing.assert_allclose(means(tmp_path / "corrected.onnx"), wanted, rtol=1e-5, atol=1e-5)
