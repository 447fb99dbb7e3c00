"""Lowering to integer operators in NHWC: the same integers out of another graph."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser
from qpipe_onnxruntime.lower.choices import by_products, choice_of, no_packs, on_tiles
from qpipe_onnxruntime.lower.integer import lower_images
from qpipe_onnxruntime.lower.passes import lower
from qpipe_onnxruntime.lower.pixels import ALONE, Packs, Rows, pack_weights, packed_rows

from qpipe.quant.calibration.calibrate import batches_of
from qpipe.quant.operators import refusal
from qpipe.quant.schemes import ORT_X86_AMX, ORT_X86_AVX2, ORT_X86_VNNI
from qpipe.quant.static import quantize_static

LEVELS = ort.GraphOptimizationLevel
SCHEME = replace(ORT_X86_VNNI, direct_channels=0)
IMAGE = "(float[N,3,12,12] x) => (float[N,C,H,W] y)"
STEM = "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w, b) r = Relu(c)"
W = {"w": (16, 3, 3, 3), "b": (16,), "u": (16, 16, 3, 3), "v": (8, 16, 1, 1)}
SAME = "kernel_shape=[3,3],pads=[1,1,1,1]"


@dataclass(frozen=True)
class Case:
    name: str
    body: str
    weights: dict = field(default_factory=dict)
    kernels: dict = field(default_factory=dict)
    """Operators of the lowered graph, by name and number."""
    head: str = IMAGE


CASES = [
    Case("stem", f"{STEM} y = Conv<{SAME}>(r, u)", kernels={"QLinearConv": 2, "Transpose": 2, "Reshape": 3}),
    Case(
        "residual",
        f"{STEM} d = Conv<{SAME}>(r, u, b) a = Add(d, r) s = Relu(a) y = Conv<kernel_shape=[1,1]>(s, v)",
        kernels={"QLinearConv": 3, "QLinearAdd": 1, "Transpose": 2},
    ),
    Case(
        "pools",
        f"{STEM} m = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r) n = Conv<{SAME}>(m, u, b) "
        "p = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1],count_include_pad=1>(n) y = Conv<kernel_shape=[1,1]>(p, v)",
        kernels={"QLinearConv": 3, "NhwcMaxPool": 1, "QLinearAveragePool": 1},
    ),
    Case(
        "global pool",
        f"{STEM} g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, k)",
        {"k": (16, 4)},
        kernels={"QLinearConv": 1, "QLinearGlobalAveragePool": 1},
        head="(float[N,3,12,12] x) => (float[N,M] y)",
    ),
    Case(
        "concat",
        f"{STEM} d = Conv<kernel_shape=[1,1]>(x, k, b) j = Concat<axis=1>(r, d) y = Conv<kernel_shape=[1,1]>(j, t)",
        {"k": (16, 3, 1, 1), "t": (8, 32, 1, 1)},
        kernels={"QLinearConv": 3, "QLinearConcat": 1},
    ),
    Case(
        "depthwise",
        f"{STEM} y = Conv<{SAME},group=16>(r, k, b)",
        {"k": (16, 1, 3, 3)},
        kernels={"QLinearConv": 2},
    ),
    Case("grouped", f"{STEM} y = Conv<{SAME},group=4>(r, k, b)", {"k": (16, 4, 3, 3)}, kernels={"QLinearConv": 2}),
    Case(
        "squeeze-excite",
        f"{STEM} g = GlobalAveragePool(r) d = Conv<kernel_shape=[1,1]>(g, k, b) s = Sigmoid(d) m = Mul(r, s) "
        "y = Conv<kernel_shape=[1,1]>(m, v)",
        {"k": (16, 16, 1, 1)},
        kernels={"QLinearConv": 3, "QLinearMul": 1},
    ),
    Case(
        "a float reader",
        f"{STEM} e = Exp(r) d = Conv<{SAME}>(r, u, b) y = Add(d, e)",
        kernels={"QLinearConv": 2, "Exp": 1},
    ),
    Case(
        "strides",
        "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]>(x, w, b) y = Conv<"
        "kernel_shape=[3,3],pads=[0,0,1,1],strides=[2,2]>(c, u)",
        kernels={"QLinearConv": 2},
    ),
    Case(
        "patches",
        "y = Conv<kernel_shape=[4,4],strides=[4,4]>(x, k, b)",
        {"k": (16, 3, 4, 4)},
        kernels={"QLinearConv": 1, "Reshape": 1},
    ),
    Case(
        "one channel out",
        f"{STEM} y = Conv<kernel_shape=[1,1]>(r, k, one)",
        {"k": (1, 16, 1, 1), "one": (1,)},
        kernels={"QLinearConv": 2},
    ),
    Case("uneven pads", "y = Conv<kernel_shape=[3,3],pads=[0,2,1,0]>(x, w, b)", kernels={"QLinearConv": 1}),
    Case(
        "wide kernel",
        f"{STEM} y = Conv<kernel_shape=[5,5],pads=[2,2,2,2]>(r, k)",
        {"k": (16, 16, 5, 5)},
        kernels={"QLinearConv": 2},
    ),
    Case(
        "dilated",
        f"{STEM} y = Conv<kernel_shape=[3,3],pads=[2,2,2,2],dilations=[2,2]>(r, u)",
        kernels={"QLinearConv": 2},
    ),
    Case(
        "an unknown width",
        f"{STEM} y = Conv<{SAME}>(r, u)",
        kernels={"QLinearConv": 2, "Reshape": 0},
        head="(float[N,3,H,W] x) => (float[N,C,H,W] y)",
    ),
    Case(
        "signals",
        "c = Conv<kernel_shape=[3]>(x, k) y = Relu(c)",
        {"k": (8, 3, 3)},
        kernels={"QLinearConv": 0},
        head="(float[N,3,12] x) => (float[N,C,L] y)",
    ),
]


def quantized(case, folder):
    """The Q/DQ graph of a case."""
    random = np.random.default_rng(0)
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {case.head} {{ {case.body} }}')
    used = {name for node in model.graph.node for name in node.input}
    for name, shape in (W | case.weights).items():
        if name in used:
            values = shape if isinstance(shape, np.ndarray) else random.normal(size=shape) / 4
            model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    path = folder / "float.onnx"
    path.write_bytes(model.SerializeToString())
    return quantize_static(path, lambda: batches_of(images(case, 8), 4), SCHEME).qdq


def images(case, count):
    sizes = (3, 12) if "3,12]" in case.head else (3, 12, 12)
    return {"x": np.random.default_rng(count).normal(size=(count, *sizes)).astype(np.float32)}


def run(model, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def running(model):
    """Operators that read more than constants."""
    live = set(model.graph.inputs)
    nodes = [node for node in model.graph if not live.isdisjoint(node.inputs) and not live.update(node.outputs)]
    return [node.op_type for node in nodes]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_engine_computes_the_same_integers(case, tmp_path):
    before = quantized(case, tmp_path)
    after = before.clone()
    notes = lower_images(after, on_tiles)
    found = Counter(running(after))
    assert {op: found[op] for op in case.kernels} == case.kernels, found
    assert bool(notes) == bool(case.kernels["QLinearConv"])
    for count in (1, 3):
        for ours, theirs in zip(run(after, images(case, count)), run(before, images(case, count)), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_images_are_quantized_as_a_float_convolution_leaves_them(tmp_path):
    """One Transpose before the quantizer, which its kernel does while it writes, and none around the Add."""
    body = f"o = Conv<{SAME}>(x, w, b) f = Relu(o) d = Conv<{SAME}>(f, u, b) y = Add(d, f)"
    before = quantize_direct(body, tmp_path)
    after = before.clone()
    lower_images(after, on_tiles)
    kinds = running(after)
    assert kinds.index("Transpose") < kinds.index("QuantizeLinear")
    assert kinds.count("Transpose") == 2
    feeds = images(CASES[0], 2)
    np.testing.assert_array_equal(run(after, feeds)[0], run(before, feeds)[0])


def quantize_direct(body, folder):
    """Quantized with the stem in float."""
    case = Case("", body)
    scheme = replace(ORT_X86_VNNI, packs=0)
    quantized(case, folder)
    return quantize_static(folder / "float.onnx", lambda: batches_of(images(case, 8), 4), scheme).qdq


def test_weights_stored_small_are_spread_before_the_first_run(tmp_path):
    """At every level that folds constants; without any the numbers are the same."""
    case = next(case for case in CASES if case.name == "residual")
    before, path = quantized(case, tmp_path), tmp_path / "engine.onnx"
    ir.save(before, tmp_path / "qdq.onnx")
    (note,) = lower(tmp_path / "qdq.onnx", path, on_tiles)
    assert note.endswith("3 of them on packs of pixels (weights of 1 are spread over packs at load)")
    kept = ir.load(path).graph.initializers.values()
    assert {value.shape.numpy() for value in kept if len(value.shape) == 5} == {(3, 16, 1, 16, 3)}
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        loaded = ir.load(tmp_path / "optimized.onnx")
        spread = {"Pad", "Gather", "Split"} & {node.op_type for node in loaded.graph}
        assert bool(spread) == (level == LEVELS.ORT_DISABLE_ALL)
        feeds = images(case, 2)
        np.testing.assert_array_equal(session.run(None, feeds)[0], run(before, feeds)[0])
    weights = (value.const_value.numpy() for value in loaded.graph.initializers.values() if len(value.shape) == 4)
    (packed,) = (array for array in weights if array.shape == (64, 16, 3, 6))
    small = before.graph.initializers["u_quantized"].const_value.numpy()
    rows = Rows(width=12, kernel=3, left=1, right=1, stride=1)
    np.testing.assert_array_equal(packed, pack_weights(small, rows, Packs(image=1, result=4)))


def test_packs_can_be_refused(tmp_path):
    model = quantized(CASES[0], tmp_path)
    (note,) = lower_images(model, choice_of(ORT_X86_AVX2))
    assert note == "2 convolutions are integer operators in NHWC in the engine"
    assert not any(node.op_type == "Reshape" for node in model.graph)


def test_other_graphs_stay_as_they_are(tmp_path):
    body = "y = MatMul(x, k)"
    model = quantized(Case("", body, {"k": (12, 4)}, head="(float[N,3,12] x) => (float[N,3,4] y)"), tmp_path)
    before = ir.to_proto(model).SerializeToString()
    assert lower_images(model, on_tiles) == ()
    assert ir.to_proto(model).SerializeToString() == before


def convolve(image, weights, rows):
    """[W, C] with [O, C, 1, kw] → [W', O], by definition."""
    padded = np.pad(image, ((rows.left, rows.right), (0, 0)))
    windows = [padded[start * rows.stride :][: rows.kernel] for start in range(rows.outputs)]
    return np.stack([np.einsum("kc,ock->o", window, weights[:, :, 0]) for window in windows])


CONVOLUTIONS = st.builds(
    Rows,
    width=st.integers(1, 6).map(lambda packs: 4 * packs),
    kernel=st.integers(1, 7),
    left=st.integers(0, 3),
    right=st.integers(0, 3),
    stride=st.sampled_from([1, 2, 4]),
).filter(lambda rows: rows.outputs > 0)


@settings(max_examples=60, deadline=None)
@given(
    rows=CONVOLUTIONS,
    inputs=st.integers(1, 20),
    outputs=st.integers(1, 20),
    choose=st.sampled_from([on_tiles, by_products]),
)
def test_a_packed_convolution_is_the_convolution(rows, inputs, outputs, choose):
    packs = choose((outputs, inputs, 1, rows.kernel), rows)
    random = np.random.default_rng(rows.width)
    weights = random.integers(-127, 128, (outputs, inputs, 1, rows.kernel))
    image = random.integers(0, 256, (rows.width, inputs))
    packed = pack_weights(weights, rows, packs)
    found = convolve(image.reshape(-1, packs.image * inputs), packed, packed_rows(rows, packs))
    np.testing.assert_array_equal(found.reshape(-1, outputs), convolve(image, weights, rows))


IMAGES, OUT_2, OUT_4, TWO = (
    Packs(image=4, result=4),
    Packs(image=1, result=2),
    Packs(image=1, result=4),
    Packs(image=2, result=2),
)


def rows_of(width, kernel, stride=1):
    """With the padding that keeps the size; patches have none."""
    pad = 0 if kernel == stride else kernel // 2
    return Rows(width=width, kernel=kernel, left=pad, right=pad, stride=stride)


@pytest.mark.parametrize(
    ("outputs", "inputs", "rows", "tiles", "products"),
    [
        (16, 3, rows_of(32, 3), IMAGES, IMAGES),
        (32, 3, rows_of(224, 3, 2), Packs(image=4, result=2), Packs(image=4, result=2)),
        (32, 3, rows_of(14, 3, 2), Packs(image=2, result=1), Packs(image=2, result=1)),
        (64, 3, rows_of(224, 16, 16), Packs(image=4, result=1), Packs(image=4, result=1)),
        (16, 3, rows_of(29, 3), ALONE, ALONE),
        (32, 4, rows_of(32, 3), TWO, ALONE),
        (64, 4, rows_of(32, 3), ALONE, ALONE),
        (16, 4, rows_of(64, 3, 2), IMAGES, TWO),
        (8, 8, rows_of(32, 3), IMAGES, OUT_4),
        (16, 8, rows_of(32, 3), OUT_4, OUT_2),
        (16, 16, rows_of(32, 3), OUT_4, ALONE),
        (16, 16, rows_of(14, 3), OUT_2, ALONE),
        (24, 16, rows_of(32, 3), OUT_2, OUT_2),
        (8, 64, rows_of(32, 3), ALONE, OUT_2),
        (16, 16, rows_of(32, 3, 2), TWO, ALONE),
        (8, 8, rows_of(32, 3, 2), TWO, TWO),
        (16, 16, rows_of(32, 5), TWO, TWO),
        (32, 32, rows_of(32, 5), TWO, ALONE),
        (16, 16, rows_of(32, 1), TWO, ALONE),
        (12, 32, rows_of(32, 1), ALONE, TWO),
        (32, 32, rows_of(32, 3), ALONE, ALONE),
        (32, 16, rows_of(32, 3, 2), ALONE, ALONE),
    ],
)
def test_packs_are_for_few_channels_and_rows_that_divide(outputs, inputs, rows, tiles, products):
    """As docs/benchmarks/packing.md found them on either kind of processor."""
    shape = (outputs, inputs, rows.kernel, rows.kernel)
    assert (on_tiles(shape, rows), by_products(shape, rows)) == (tiles, products)
    assert no_packs(shape, rows) == ALONE


@pytest.mark.parametrize("kernel", [1, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [62, 64, 96, 224])
def test_what_the_plan_puts_on_integers_for_its_packs_is_packed(width, stride, kernel):
    """The plan knows the scheme alone; the engine must keep what it promises."""
    pads = [kernel // 2, (kernel - 1) // 2]
    rows = Rows(width=width, kernel=kernel, left=pads[0], right=pads[1], stride=stride)
    data = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 3, width, width]))
    weights = ir.tensor(np.ones((16, 3, kernel, kernel), np.float32), name="w")
    value = ir.Value(name="w", const_value=weights, type=data.type, shape=weights.shape)
    node = ir.node("Conv", [data, value], {"strides": [stride, stride], "pads": [pads[0]] * 2 + [pads[1]] * 2})
    ir.Graph([data], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 21})
    node.outputs[0].shape = ir.Shape(["N", 16, rows.outputs, rows.outputs])
    if not refusal(node, ORT_X86_VNNI):
        for scheme in (ORT_X86_VNNI, ORT_X86_AMX):
            assert choice_of(scheme)((16, 3, kernel, kernel), rows).image == scheme.packs
