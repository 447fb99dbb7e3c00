"""Weight-only codes on onnxruntime: k-means codebooks, HQQ, and int4 blocks in Q/DQ form."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import run as run_all
from networks import sqnr_db, write_network
from onnx import TensorProto, numpy_helper

from qpipe.errors import ConfigError, QuantizationError, TargetError
from qpipe.prepare import builtin_recipe
from qpipe.prepare.run import read_params
from qpipe.prepare.stages.weight_only import WEIGHT_ONLY
from qpipe.quant.calibration.calibrate import batches_of
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.options import QuantOptions
from qpipe.quant.schemes import LITERT, ORT_X86_VNNI, TENSORRT
from qpipe.quant.static import quantize_static
from qpipe.quant.storage.codebook import encode, plan_codebooks, render_codebooks
from qpipe.quant.storage.weight_only import plan_weight_only, render_weight_only
from qpipe.quant.weights.blocks import pack, quantize_blocks, split
from qpipe.quant.weights.hqq import hqq_blocks, lp_error
from qpipe.quant.weights.int4 import quantize_int4, spread_blocks
from qpipe.quant.weights.kmeans import (
    indices_per_word,
    learn_levels,
    nearest_levels,
    pack_words,
    packed_bytes,
    word_type,
)
from qpipe.records.quantization import Override, WeightSpec
from qpipe.records.recipe import StageSpec

NET = (
    "(float[N,16,8,8] x) => (float[N,24] y)",
    "c = Conv<kernel_shape=[3,3]>(x, w, b) r = Relu(c) u = ConvTranspose<kernel_shape=[3,3]>(r, t) a = Add(u, x) "
    "g = GlobalAveragePool(a) f = Flatten(g) m = MatMul(f, k) y = Gemm<transB=1>(m, l)",
    {"w": (32, 16, 3, 3), "b": (32,), "t": (32, 16, 3, 3), "k": (16, 40), "l": (24, 40)},
)


def heavy(shape, seed=0):
    """Heavy-tailed weights (Student's t, 3 degrees of freedom), as trained layers with outliers have."""
    return (np.random.default_rng(seed).standard_t(3, shape) * 0.05).astype(np.float32)


def write(path, head, body, weights, opset=17):
    arrays = {
        name: heavy(value, number) if isinstance(value, tuple) else value
        for number, (name, value) in enumerate(weights.items())
    }
    return write_network(path, head, body, arrays, opset)


def run(path, rows, **how):
    return run_all(path, rows, **how)[0]


def images(count=8):
    return {"x": np.random.default_rng(1).standard_normal((count, 16, 8, 8)).astype(np.float32)}


# k-means


@given(arrays(np.float32, st.integers(1, 200), elements=st.floats(-100, 100, width=32)), st.sampled_from([4, 16, 64]))
@settings(max_examples=60)
def test_levels_beat_an_even_grid_and_are_the_same_again(values, count):
    levels = learn_levels(values, count)
    assert levels.shape == (count,)
    assert (np.diff(levels) >= 0).all()
    np.testing.assert_array_equal(levels, learn_levels(values[::-1].copy(), count))
    grid = np.linspace(values.min(), values.max(), count).astype(np.float32)

    def error(of):
        return np.square(of[nearest_levels(values, of)].astype(np.float64) - values).sum()

    assert error(levels) <= error(grid) * (1 + 1e-3) + 1e-6


@given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 7.0]), min_size=1, max_size=50))
def test_few_distinct_values_are_exact(values):
    array = np.array(values, np.float32)
    levels = learn_levels(array, 8)
    np.testing.assert_array_equal(levels[nearest_levels(array, levels)], array)


@pytest.mark.parametrize("bits", range(2, 9))
@given(data=st.data())
@settings(max_examples=20)
def test_words_hold_every_index(bits, data):
    indices = data.draw(arrays(np.uint8, st.integers(1, 80), elements=st.integers(0, 2**bits - 1)))
    words = pack_words(indices, bits)
    assert words.nbytes == packed_bytes(indices.size, bits)
    shifts = (np.arange(indices_per_word(bits)) * bits).astype(word_type(bits))
    back = ((words[:, None] >> shifts) & word_type(bits)(2**bits - 1)).reshape(-1)[: indices.size]
    np.testing.assert_array_equal(back, indices)
    assert words.nbytes * 8 <= bits * indices.size * 1.07 + 64


@pytest.mark.parametrize(("bits", "channels"), [(2, 0), (3, 5), (4, 0), (4, 1), (5, 0), (6, 7), (7, 0), (8, 0), (8, 4)])
def test_codebooks_decode_to_what_was_learned(tmp_path, bits, channels):
    model = open_graph(write(tmp_path / "float.onnx", *NET))
    plan = plan_codebooks(model, ORT_X86_VNNI, bits=bits, channels=channels)
    save_graph(render_codebooks(model, plan), tmp_path / "coded.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "coded.onnx"), full_check=True)
    learned = onnx.load(tmp_path / "float.onnx")
    coded = {spec.tensor: spec for spec in plan.weights}
    assert {"w", "t"} <= set(coded)
    for tensor in learned.graph.initializer:
        if tensor.name in coded:
            spec = coded[tensor.name]
            assert spec.axis is not None
            found = encode(numpy_helper.to_array(tensor), spec)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(found.real(spec.axis)), tensor.name))
    onnx.save(learned, tmp_path / "learned.onnx")
    wanted = run(tmp_path / "learned.onnx", images())
    for plain in (False, True):
        found = run(tmp_path / "coded.onnx", images(), plain=plain)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    if bits == 8:
        assert sqnr_db(run(tmp_path / "float.onnx", images()), wanted) > 35


def test_codebooks_need_no_later_opset_and_are_gone_after_loading(tmp_path):
    model = open_graph(write(tmp_path / "float.onnx", *NET, opset=13))
    save_graph(render_codebooks(model, plan_codebooks(model, ORT_X86_VNNI)), tmp_path / "coded.onnx")
    assert onnx.load(tmp_path / "coded.onnx").opset_import[0].version == 13
    run(tmp_path / "coded.onnx", images(), optimized=tmp_path / "loaded.onnx")
    left = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert not left & {"BitShift", "Mod", "Cast", "Gather"}


def test_codebooks_of_recurrent_weights_and_of_weights_that_a_subgraph_reads(tmp_path):
    path = write(
        tmp_path / "float.onnx",
        "(float[L,N,16] x) => (float[L,N,32] y)",
        "h, a, c = LSTM<hidden_size=32>(x, w, r) s = Squeeze(h, one) m = MatMul(s, k) t = ReduceMax<keepdims=0>(m) "
        "f = Greater(t, far) y = If(f) <then_branch = p () => (float[L,N,32] q) { q = Neg(m) }, "
        "else_branch = e () => (float[L,N,32] z) { z = MatMul(m, k) }>",
        {"w": (1, 128, 16), "r": (1, 128, 32), "k": (32, 32), "one": np.array([1]), "far": np.float32(1e9)},
    )
    model = open_graph(path)
    plan = plan_codebooks(model, ORT_X86_VNNI, bits=8)
    assert {spec.tensor for spec in plan.weights} == {"w", "r", "k"}
    save_graph(render_codebooks(model, plan), tmp_path / "coded.onnx")
    rows = {"x": np.random.default_rng(0).standard_normal((5, 2, 16)).astype(np.float32)}
    assert sqnr_db(run(path, rows), run(tmp_path / "coded.onnx", rows)) > 30


@pytest.mark.parametrize("channels", [0, 8])
def test_codebooks_lose_less_than_even_levels_of_the_same_width(tmp_path, channels):
    """Heavy tails: 16 learned levels against int4, both with one scale per output channel."""
    array = heavy((256, 256))
    spec = WeightSpec(
        tensor="w", dtype="kmeans", bits=4, symmetric=False, axis=1, block_size=channels or None, method="kmeans"
    )
    values, scale = quantize_int4(array, 0, 256)
    even = sqnr_db(array, values * spread_blocks(scale, 256, 256, 0))
    learned = sqnr_db(array, encode(array, spec).real(1))
    assert learned > even + 2


def test_the_file_shrinks_as_the_bits_say(tmp_path):
    weights = {"w": (64, 64, 3, 3), "k": (64, 256)}
    body = "c = Conv<kernel_shape=[3,3]>(x, w) g = GlobalAveragePool(c) f = Flatten(g) y = MatMul(f, k)"
    path = write(tmp_path / "float.onnx", "(float[N,64,8,8] x) => (float[N,M] y)", body, weights)
    model = open_graph(path)
    sizes = {}
    for bits in (3, 4, 5, 8):
        save_graph(render_codebooks(model, plan_codebooks(model, ORT_X86_VNNI, bits=bits)), tmp_path / "c.onnx")
        sizes[bits] = (tmp_path / "c.onnx").stat().st_size / path.stat().st_size
    for bits, size in sizes.items():
        assert bits / 32 < size < bits / 32 * 1.08 + 0.03


def test_weights_that_would_not_get_smaller_stay(tmp_path):
    head, body, weights = NET
    model = open_graph(write(tmp_path / "float.onnx", head, body, {**weights, "k": (16, 8), "l": (24, 8)}))
    plan = plan_codebooks(model, ORT_X86_VNNI)
    left = {choice.op: choice.reason for choice in plan.left_in_float()}
    assert set(left) == {"MatMul", "Gemm"}
    assert all("coded it would take" in reason for reason in left.values())


def test_codebooks_that_gain_nothing_are_refused(tmp_path):
    path = write(tmp_path / "m.onnx", "(float[N,8] x) => (float[N,M] y)", "y = MatMul(x, w)", {"w": (8, 8)})
    with pytest.raises(QuantizationError, match="makes no weight of this graph smaller") as caught:
        plan_codebooks(open_graph(path), ORT_X86_VNNI)
    assert "bytes, as it is 256" in caught.value.hint


@pytest.mark.parametrize(
    ("scheme", "keywords", "message"),
    [
        (TENSORRT, {}, "does not decode k-means codebooks"),
        (LITERT, {}, "does not decode k-means codebooks"),
        (ORT_X86_VNNI, {"bits": 9}, "2 to 8 bits"),
        (ORT_X86_VNNI, {"bits": 1}, "2 to 8 bits"),
        (ORT_X86_VNNI, {"channels": -1}, "0 or more channels"),
        (ORT_X86_VNNI, {"options": QuantOptions(keep_float=("*",))}, "makes no weight"),
    ],
)
def test_codebooks_that_are_refused(tmp_path, scheme, keywords, message):
    model = open_graph(write(tmp_path / "float.onnx", *NET))
    with pytest.raises(QuantizationError, match=message):
        plan_codebooks(model, scheme, **keywords)


def test_codebooks_of_broken_weights_name_the_node(tmp_path):
    head, body, weights = NET
    model = open_graph(write(tmp_path / "m.onnx", head, body, {**weights, "w": np.full((32, 16, 3, 3), np.nan, "f")}))
    with pytest.raises(QuantizationError, match=r"node '.+' \(Conv\) has NaN or infinite weights"):
        plan_codebooks(model, ORT_X86_VNNI)


@pytest.mark.parametrize("name", ["kmeans", "nf4"])
def test_recipes_of_codes_that_a_runtime_does_not_read_are_refused(name):
    with pytest.raises(TargetError, match="codes"):
        builtin_recipe(name, TENSORRT)


# HQQ


@given(arrays(np.float32, (3, 2, 16), elements=st.floats(-10, 10, width=32)), st.sampled_from([4, 8]))
@settings(max_examples=60)
def test_hqq_is_never_worse_than_nearest_in_its_own_norm(blocks, bits):
    integers, scale, zero = hqq_blocks(blocks, bits)
    assert integers.max() < 2**bits
    found = lp_error((integers.astype(np.float32) - zero[:, :, None]) * scale[:, :, None] - blocks)
    nearest, nearest_scale = quantize_blocks(blocks.reshape(3, -1), bits, 16)
    plain = lp_error((nearest.astype(np.float32) - 2 ** (bits - 1)) * nearest_scale[:, :, None] - blocks)
    assert (found <= plain * (1 + 1e-3) + 1e-3 * np.abs(blocks).max()).all()


@pytest.mark.parametrize("weights", [heavy((64, 256)), np.random.default_rng(0).normal(size=(64, 256)).astype("f")])
def test_hqq_lowers_the_error_of_weights(weights):
    blocks = split(weights, 32)
    integers, scale, zero = hqq_blocks(blocks, 4)
    error = (integers.astype(np.float32) - zero[:, :, None]) * scale[:, :, None] - blocks
    nearest, nearest_scale = quantize_blocks(weights, 4, 32)
    plain = (nearest.astype(np.float32) - 8) * nearest_scale[:, :, None] - blocks
    assert lp_error(error).sum() < 0.96 * lp_error(plain).sum()
    assert np.square(error).sum() < 0.95 * np.square(plain).sum()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("width", [96, 80])
def test_the_kernel_reads_zero_points_as_we_pack_them(tmp_path, bits, width):
    """Three blocks of 32: an odd number of 4-bit zero points, and with 80 columns a ragged last block."""
    head = f"(float[N,{width}] x) => (float[N,M] y)"
    path = write(tmp_path / "m.onnx", head, "y = MatMul(x, w)", {"w": np.abs(heavy((width, 24))) + np.float32(0.1)})
    model = open_graph(path)
    made = render_weight_only(model, plan_weight_only(model, ORT_X86_VNNI, bits=bits), rounding="hqq")
    save_graph(made, tmp_path / "q.onnx")
    rows = {"x": np.random.default_rng(0).standard_normal((5, width)).astype(np.float32)}
    weight = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    integers, scale, zero = hqq_blocks(split(np.ascontiguousarray(weight.T), 32, repeat_last=True), bits)
    assert zero.any()
    real = ((integers.astype(np.float32) - zero[:, :, None]) * scale[:, :, None]).reshape(24, -1)[:, :width]
    np.testing.assert_allclose(run(tmp_path / "q.onnx", rows), rows["x"] @ real.T, rtol=1e-4, atol=1e-4)


def test_packing_an_odd_row_leaves_the_last_number_alone():
    np.testing.assert_array_equal(pack(np.array([[1, 2, 3]], np.uint8), 4), [[0x21, 0x03]])


@pytest.mark.parametrize(
    ("scheme", "code", "rounding", "message"),
    [
        (ORT_X86_VNNI, "nf4", "hqq", "HQQ rounds to evenly spaced levels"),
        (TENSORRT, "linear", "hqq", "HQQ is for MatMulNBits"),
        (TENSORRT, "linear", "gptq", "GPTQ is for MatMulNBits"),
    ],
)
def test_roundings_that_do_not_fit_are_refused(tmp_path, scheme, code, rounding, message):
    model = open_graph(write(tmp_path / "float.onnx", *NET))
    with pytest.raises(QuantizationError, match=message):
        render_weight_only(model, plan_weight_only(model, scheme, code=code), rounding=rounding)


def test_codes_that_a_scheme_lacks_are_refused(tmp_path):
    model = open_graph(write(tmp_path / "float.onnx", *NET))
    with pytest.raises(QuantizationError, match="no weight-only kernel for nf4 codes"):
        plan_weight_only(model, TENSORRT, code="nf4")
    with pytest.raises(QuantizationError, match="no weight-only kernel of 3 bits"):
        plan_weight_only(model, ORT_X86_VNNI, bits=3)


@pytest.mark.parametrize("params", [{"bits": 1}, {"code": "lloyd"}, {"rounding": "awq"}])
def test_parameters_are_checked(params):
    with pytest.raises(ConfigError):
        read_params(WEIGHT_ONLY, StageSpec(name="weight-only", params=params))


# int4 in blocks, as DequantizeLinear


@given(arrays(np.float32, (5, 40), elements=st.floats(-100, 100, width=32)), st.sampled_from([16, 32]), st.booleans())
@settings(max_examples=40)
def test_int4_blocks_keep_their_laws(array, block, along_rows):
    along = int(along_rows)
    values, scale = quantize_int4(array, along, block)
    assert values.shape == array.shape
    assert scale.shape[along] == -(-array.shape[along] // block)
    assert (scale > 0).all()
    assert values.min() >= -8
    assert values.max() <= 7
    step = spread_blocks(scale, array.shape[along], block, along)
    # a weight may be clipped by a fifth of the largest of its block, never more
    assert (np.abs(values * step - array) <= 0.5 * step + 0.21 * np.abs(array).max() + 1e-6).all()


def static_int4(path, scheme, rows, match="*", block=32):
    options = QuantOptions(overrides=(Override(match=match, weights="int4", block_size=block),))
    return quantize_static(path, lambda: batches_of(rows, len(rows["x"])), scheme, options)


@pytest.mark.parametrize("scheme", [ORT_X86_VNNI, TENSORRT], ids=lambda scheme: scheme.name)
def test_a_static_plan_with_int4_blocks_loads_and_is_close(tmp_path, scheme):
    path = write(tmp_path / "float.onnx", *NET)
    found = static_int4(path, scheme, images(), block=16)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    proto = onnx.load(tmp_path / "qdq.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version >= 21
    assert proto.ir_version >= 10
    blocked = {spec.tensor for spec in found.plan.weights if spec.dtype == "int4"}
    assert blocked == ({"w", "k", "l"} if scheme is ORT_X86_VNNI else {"k", "l"})
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    readers = [node for node in proto.graph.node if types.get(node.input[0]) == TensorProto.INT4]
    assert len(readers) == len(blocked)
    for node in readers:
        assert {item.name: item.i for item in node.attribute}["block_size"] == 16
    reference = run(path, images())
    for plain in (False, True):
        assert sqnr_db(reference, run(tmp_path / "qdq.onnx", images(), plain=plain)) > 14
    # nodes that the scheme has no int4 form for go on as int8, and the plan says so
    assert bool([note for note in found.plan.notes if "is not int4" in note]) == (scheme is TENSORRT)


def test_onnxruntime_makes_its_own_kernel_of_int4_pairs(tmp_path):
    path = write(tmp_path / "m.onnx", "(float[N,72] x) => (float[N,M] y)", "y = MatMul(x, w)", {"w": (72, 24)})
    rows = {"x": np.random.default_rng(0).standard_normal((16, 72)).astype(np.float32)}
    found = static_int4(path, ORT_X86_VNNI, rows)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    fused = run(tmp_path / "qdq.onnx", rows, optimized=tmp_path / "loaded.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node] == ["MatMulNBits"]
    weight = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    values, scale = quantize_int4(weight, 0, 32)
    wanted = rows["x"] @ (values * spread_blocks(scale, 72, 32, 0))
    np.testing.assert_allclose(run(tmp_path / "qdq.onnx", rows, plain=True), wanted, rtol=1e-4, atol=1e-5)
    # the kernel quantizes activations in blocks too (its accuracy level 4)
    assert 30 < sqnr_db(wanted, fused) < 60


def test_int4_beside_integer_neighbours(tmp_path):
    """The node before writes integers: its reader takes them dequantized, with weights of its own."""
    body = "a = Gemm(x, u, b) r = Relu(a) m = MatMul(r, w) s = Relu(m) y = Gemm(s, v, b)"
    weights = {"u": (32, 32), "w": (32, 32), "v": (32, 32), "b": (32,)}
    path = write(tmp_path / "m.onnx", "(float[N,32] x) => (float[N,M] y)", body, weights)
    rows = {"x": np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)}
    found = static_int4(path, ORT_X86_VNNI, rows, match="op:MatMul")
    assert [choice.quantized for choice in found.plan.nodes if choice.op == "MatMul"] == [True]
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    assert sqnr_db(run(path, rows), run(tmp_path / "qdq.onnx", rows)) > 14


def test_bias_correction_sees_int4_weights(tmp_path):
    weights = {"w": (64, 32), "b": (32,)}
    path = write(tmp_path / "m.onnx", "(float[N,64] x) => (float[N,M] y)", "y = Gemm(x, w, b)", weights)
    rows = {"x": np.random.default_rng(0).uniform(0, 2, (256, 64)).astype(np.float32)}
    found = static_int4(path, ORT_X86_VNNI, rows)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    shift = np.abs((run(tmp_path / "qdq.onnx", rows) - run(path, rows)).mean(axis=0)).max()
    values, scale = quantize_int4(numpy_helper.to_array(onnx.load(path).graph.initializer[0]), 0, 32)
    error = values * spread_blocks(scale, 64, 32, 0) - numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    assert shift < 0.05 * np.abs(rows["x"].mean(axis=0) @ error).max()


@pytest.mark.parametrize(
    ("scheme", "block", "message"),
    [
        (LITERT, 32, "takes no int4 weights in blocks"),
        (ORT_X86_VNNI, 24, "block size 24"),
        (ORT_X86_VNNI, 8, "block size 8"),
    ],
)
def test_int4_that_is_refused(tmp_path, scheme, block, message):
    path = write(tmp_path / "float.onnx", *NET)
    with pytest.raises(QuantizationError, match=message):
        static_int4(path, scheme, images(), block=block)


def test_int4_of_broken_weights_names_the_node(tmp_path):
    broken = np.full((32, 8), np.inf, np.float32)
    path = write(tmp_path / "m.onnx", "(float[N,32] x) => (float[N,M] y)", "y = MatMul(x, w)", {"w": broken})
    rows = {"x": np.ones((4, 32), np.float32)}
    with pytest.raises(QuantizationError, match=r"node '.+' \(MatMul\) has NaN or infinite weights"):
        static_int4(path, ORT_X86_VNNI, rows)


def test_weight_only_for_tensorrt_is_pairs_of_int4(tmp_path):
    path = write(tmp_path / "float.onnx", *NET)
    model = open_graph(path)
    made = render_weight_only(model, plan_weight_only(model, TENSORRT, block_size=16))
    save_graph(made, tmp_path / "q.onnx")
    proto = onnx.load(tmp_path / "q.onnx")
    assert {node.domain for node in proto.graph.node} == {""}
    pairs = [node for node in proto.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert [node.op_type for node in pairs] == ["DequantizeLinear"] * 2
    assert sqnr_db(run(path, images()), run(tmp_path / "q.onnx", images())) > 14


def test_a_shared_weight_may_be_int4_for_one_node_and_int8_for_another(tmp_path):
    body = "a = MatMul(x, w) r = Relu(a) y = MatMul(r, w)"
    path = write(tmp_path / "m.onnx", "(float[N,32] x) => (float[N,M] y)", body, {"w": (32, 32)})
    first = next(node.name for node in open_graph(path).graph if node.op_type == "MatMul")
    rows = {"x": np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)}
    found = static_int4(path, replace(ORT_X86_VNNI, fused_ops=()), rows, match=first)
    assert sorted(spec.dtype for spec in found.plan.weights) == ["int4", "int8"]
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    assert sqnr_db(run(path, rows), run(tmp_path / "qdq.onnx", rows)) > 14
