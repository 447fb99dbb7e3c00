"""8-bit images on integers without loss: the grid is found from the rows, and first convolutions read it."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from qpipe.quant.calibration.statistics import InputStatistics, Statistics
from qpipe.quant.check import relative_difference, run_float
from qpipe.quant.fold import fold
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.grid import Grid, find_grid, load_grid, save_grid
from qpipe.quant.operators import pixel_zero
from qpipe.quant.options import QuantOptions
from qpipe.quant.pixels import read_pixels
from qpipe.quant.schemes import LITERT, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI, TENSORRT
from qpipe.quant.static import quantize_static

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CENTRED = ((0.5,) * 3, (0.5,) * 3)
BODY = "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w, b) r = Relu(c) y = Conv<kernel_shape=[1,1]>(r, v)"


def levels(rows=32, size=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 3, size, size)).astype(np.uint8)


def normalized(image, mean=MEAN, deviation=DEVIATION):
    shape = (1, 3, 1, 1)
    mean, deviation = (np.array(one, np.float32).reshape(shape) for one in (mean, deviation))
    return ((image.astype(np.float32) / 255 - mean) / deviation).astype(np.float32)


def shown(grid, image):
    """The levels of float images on a grid."""
    step, zero = (one.reshape(1, -1, 1, 1) for one in (grid.step, grid.zero))
    return image / step + zero


@pytest.mark.parametrize(
    ("mean", "deviation", "zero"),
    [
        (MEAN, DEVIATION, np.array(MEAN) * 255),
        (*CENTRED, [127.5] * 3),
        ((0, 0, 0), (1, 1, 1), [0, 0, 0]),
        ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255), [0, 0, 0]),
        ((-1, 0, 2), (0.1, 1, 5), [-255, 0, 510]),
    ],
    ids=["imagenet", "centred", "0 to 1", "0 to 255", "far from zero"],
)
def test_a_grid_is_found_to_a_hundredth_of_a_step(mean, deviation, zero):
    image = levels()
    grid = find_grid(np.array_split(normalized(image, mean, deviation), 4), 1)
    assert np.allclose(grid.zero, zero, atol=1e-3)
    assert np.allclose(grid.step * 255 * np.array(deviation), 1, rtol=1e-5)
    assert np.allclose(grid.mean, image.mean(axis=(0, 2, 3)), atol=1e-3)
    assert np.abs(shown(grid, normalized(image, mean, deviation)) - image).max() < 0.01


def test_a_grid_in_nhwc_with_few_rows_and_levels_that_no_row_has(tmp_path):
    image = np.clip(levels(rows=1, size=32), 10, 240) // 2 * 2
    grid = find_grid(iter([normalized(image).transpose(0, 2, 3, 1)]), 3)
    assert np.allclose(grid.step * 255 * np.array(DEVIATION), 2, rtol=1e-5)  # a grid of every second level
    found = shown(grid, normalized(image))
    assert found.min() > -0.01
    assert found.max() < 255.01
    save_grid(grid, tmp_path)
    assert all(np.array_equal(getattr(load_grid(tmp_path), name), getattr(grid, name)) for name in ("step", "zero"))
    save_grid(None, tmp_path)
    assert load_grid(tmp_path) is None


def off(change):
    """Images with one change in their last row, far behind the sample."""
    image = normalized(levels(rows=80))
    change(image)
    return np.array_split(image, 8)


def set_to(value):
    return lambda image: image.__setitem__((-1, 1, 3, 4), value)


@pytest.mark.parametrize(
    "batches",
    [
        off(set_to(0.0121)),
        off(set_to(np.nan)),
        off(set_to(np.inf)),
        off(set_to(normalized(levels())[0, 1, 0, 0] + 300 / 255 / DEVIATION[1])),
        off(lambda image: image.__setitem__((slice(None), 2), 0.5)),
        [np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)],
        [normalized(levels(rows=1, size=4))],
        [normalized(levels()).astype(np.float16).astype(np.float32)],
        [normalized(levels() // 64 * 64)],
        [],
    ],
    ids=[
        "one value off",
        "nan",
        "inf",
        "a level too far",
        "a constant channel",
        "continuous",
        "few",
        "half",
        "four levels",
        "none",
    ],
)
def test_no_grid_where_a_value_is_off_it_or_too_little_is_known(batches):
    assert find_grid(batches, 1) is None


def network(tmp_path, body=BODY, head="(float[N,3,12,12] x) => (float[N,C,H,W] y)", **shapes):
    random = np.random.default_rng(1)
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {head} {{ {body} }}')
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{number}"
    used = {name for node in model.graph.node for name in node.input}
    for name, shape in ({"w": (16, 3, 3, 3), "b": (16,), "v": (8, 16, 1, 1)} | shapes).items():
        if name in used:
            array = random.normal(size=shape).astype(np.float32) / 4
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    path = tmp_path / "float.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def rewritten(path, image, scheme=ORT_X86_VNNI, options=None, axis=1):
    """The float graph before and after, and the nodes that were changed."""
    model = open_graph(path)
    fold(model)
    before = model.clone()
    known = Statistics(rows=len(image), batches=1, inputs=(), tensors={})
    grids = {"x": find_grid([image], axis)}
    done, statistics = read_pixels(
        model, known, scheme, options or QuantOptions(), lambda name, at: grids[name] if at == axis else None
    )
    return before, model, done, statistics


@pytest.mark.parametrize(
    ("body", "mean", "added"),
    [
        (BODY, (MEAN, DEVIATION), ["Mul", "Add", "Pad"]),
        (BODY, CENTRED, ["Mul", "Add", "Pad"]),
        (BODY, ((0,) * 3, (1,) * 3), ["Mul"]),
        (BODY.replace("pads=[1,1,1,1]", "pads=[0,1,0,1]"), (MEAN, DEVIATION), ["Mul", "Add", "Pad"]),
        (BODY.replace("(x, w, b)", "(x, w)"), (MEAN, DEVIATION), ["Mul", "Add", "Pad"]),
        (BODY + " z = Exp(x)", (MEAN, DEVIATION), ["Mul", "Add", "Pad"]),
    ],
    ids=["padded", "half steps", "0 to 1", "sides", "no bias", "another reader"],
)
def test_the_float_graph_gives_the_same(tmp_path, body, mean, added):
    head = "(float[N,3,12,12] x) => (float[N,C,H,W] y" + (", float[N,3,12,12] z)" if "Exp" in body else ")")
    image = normalized(levels(), *mean)
    before, after, done, statistics = rewritten(network(tmp_path, body, head), image)
    assert done == ("Conv0",)
    for old, new in zip(run_float(before, {"x": image}), run_float(after, {"x": image}), strict=True):
        assert relative_difference(old.astype(float), new.astype(float)) < 1e-5
    assert [node.op_type for node in after.graph if "/pixels/" in node.name] == added
    pixels = next(node for node in after.graph if node.name == "Conv0").inputs[0]
    item = statistics.get(pixels.name)
    assert pixel_zero(pixels) == -item.low[0]
    assert item.mean.size == (4 if "Pad" in added else 3)


def test_an_image_in_nhwc(tmp_path):
    image = normalized(levels()).transpose(0, 2, 3, 1).copy()
    body = "t = Transpose<perm=[0,3,1,2]>(x) " + BODY.replace("(x,", "(t,")
    path = network(tmp_path, body, "(float[N,12,12,3] x) => (float[N,C,H,W] y)")
    before, after, done, _ = rewritten(path, image, axis=3)
    assert done == ("Conv1",)
    old, new = (run_float(model, {"x": image})[0].astype(float) for model in (before, after))
    assert relative_difference(old, new) < 1e-5


@pytest.mark.parametrize("scheme", [ORT_X86_AVX2, ORT_ARM64, LITERT, TENSORRT], ids=lambda scheme: scheme.name)
def test_schemes_that_do_not_ask_keep_the_graph(tmp_path, scheme):
    before, after, done, _ = rewritten(network(tmp_path), normalized(levels()), scheme)
    assert not done
    assert len(before.graph) == len(after.graph)


@pytest.mark.parametrize(
    ("options", "width"),
    [
        (QuantOptions(keep_float=("stem",)), 12),
        (QuantOptions(keep_float=("Conv0",)), 12),
        (QuantOptions(pixels_below=0), 12),
        (QuantOptions(pixels_below=12), 12),
        (QuantOptions(), 64),
        (QuantOptions(), 13),
        (QuantOptions(), "W"),
    ],
)
def test_what_stays_as_it_is(tmp_path, options, width):
    size = width if isinstance(width, int) else 12
    image = normalized(levels(rows=8, size=size))
    path = network(tmp_path, head=f"(float[N,3,{width},{width}] x) => (float[N,C,H,V] y)")
    assert not rewritten(path, image, options=options)[2]


@pytest.mark.parametrize(
    "body",
    [
        "y = Conv<kernel_shape=[1,1]>(x, u)",
        "y = Conv<kernel_shape=[3,3],pads=[1,1,1,1],strides=[2,2]>(x, w)",
        "y = Conv<kernel_shape=[3,3]>(x, w)",
        'y = Conv<kernel_shape=[3,3],auto_pad="SAME_UPPER">(x, w)',
        "y = Conv<kernel_shape=[3,3],pads=[2,2,2,2],dilations=[2,2]>(x, w)",
        "y = Relu(x)",
    ],
    ids=["pointwise", "strided", "a narrower result", "auto_pad", "dilated", "no convolution"],
)
def test_only_convolutions_that_pay_for_it_are_taken(tmp_path, body):
    assert not rewritten(network(tmp_path, body, u=(16, 3, 1, 1)), normalized(levels()))[2]


@pytest.mark.parametrize("shape", [(16, 1, 3, 3), (16, 2, 3, 3)])
def test_images_of_fewer_channels_stay_as_they_are(tmp_path, shape):
    channels = shape[1]
    path = network(tmp_path, head=f"(float[N,{channels},12,12] x) => (float[N,C,H,W] y)", w=shape)
    assert not rewritten(path, normalized(levels())[:, :channels])[2]


@pytest.mark.parametrize("strides", [1, 2])
def test_large_images_where_the_recipe_asks(tmp_path, strides):
    body = f"y = Conv<kernel_shape=[3,3],pads=[1,1,1,1],strides=[{strides},{strides}]>(x, w)"
    path = network(tmp_path, body, "(float[N,3,64,64] x) => (float[N,C,H,W] y)")
    image = normalized(levels(rows=2, size=64))
    assert rewritten(path, image, options=QuantOptions(pixels_below=65))[2] == ("Conv0",)


def test_pixels_are_quantized_exactly_and_the_first_convolution_loses_weights_alone(tmp_path):
    image = normalized(levels())
    path = network(tmp_path)
    batches = np.array_split(image[:, :, ::2].repeat(2, axis=2), 4)
    ours = quantize_static(path, lambda: iter([{"x": one} for one in batches]), ORT_X86_VNNI)
    pair = ours.plan.activations[0]
    assert (pair.scale, pair.low, pair.high, pair.method, pair.consumers) == (1.0, -114.0, 141.0, "grid", ("Conv0",))
    assert pair.zero_point == 114
    assert any("Conv0" in note for note in ours.plan.notes)
    every = next(choice for choice in ours.plan.nodes if choice.node == "Conv0")
    assert every.quantized
    saved = ir.load(save_graph(ours.qdq, tmp_path / "qdq.onnx"))
    wanted = run_float(open_graph(path), {"x": image})[0]
    plain = quantize_static(
        path, lambda: iter([{"x": one} for one in batches]), replace(ORT_X86_VNNI, grid_below=0, direct_channels=0)
    )
    error, other = (np.square(run_float(one, {"x": image})[0] - wanted).sum() for one in (saved, plain.qdq))
    assert error < other


def test_the_tag_survives_a_file(tmp_path):
    _, after, _, _ = rewritten(network(tmp_path), normalized(levels()))
    again = open_graph(save_graph(after, tmp_path / "after.onnx"))
    conv = next(node for node in again.graph if node.name == "Conv0")
    assert pixel_zero(conv.inputs[0]) == 114


def test_statistics_name_the_rows_of_the_batch(tmp_path):
    model = open_graph(network(tmp_path))
    entry = InputStatistics(name="x", low=0, high=1, shapes=((4, 3, 12, 12), (16, 3, 12, 12)))
    known = Statistics(rows=20, batches=2, inputs=(entry,), tensors={})
    grid = Grid(step=np.full(3, 0.02), zero=np.array([100.2, 100.0, 99.9]), mean=np.full(3, 50.0))
    _, found = read_pixels(model, known, ORT_X86_VNNI, QuantOptions(), lambda *_: grid)
    (item,) = found
    assert item.shape == (16, 4, 12, 12)
    assert np.allclose(item.mean, [-50, -50, -50, 155])
