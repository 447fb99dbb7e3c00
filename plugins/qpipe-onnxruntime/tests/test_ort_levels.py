"""Quantizers that read an image's pixels themselves: the same integers for every pixel of an 8-bit image."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser
from onnx_ir.passes import common as passes
from qpipe_onnxruntime.lower.choices import on_tiles
from qpipe_onnxruntime.lower.integer import lower_images
from qpipe_onnxruntime.lower.levels import lower_levels

from qpipe.quant.graph import infer_shapes
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.quant.static import quantize_static

CHAIN = "m = Mul(x, f) a = Add(m, s) d = Pad(a, pads, one) y = QuantizeLinear(d, scale, zero)"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pixels(mean, deviation):
    """Every level in every channel, normalized."""
    shape = (1, 3, 1, 1)
    image = np.arange(256)[:, None, None, None] + np.zeros((1, 3, 2, 4))
    found = (image.astype(np.float32) / 255 - np.float32(mean).reshape(shape)) / np.float32(deviation).reshape(shape)
    return found.astype(np.float32)


def chain(body=CHAIN, **more):
    mean, deviation = (np.array(one) for one in IMAGENET)
    arrays = {
        "f": (255 * deviation).astype(np.float32).reshape(1, 3, 1, 1),
        "s": (255 * mean - 114).astype(np.float32).reshape(1, 3, 1, 1),
        "pads": np.array([0, 0, 0, 0, 0, 1, 0, 0]),
        "one": np.float32(141),
        "scale": np.float32(1),
        "zero": np.uint8(114),
    } | more
    head = "(float[N,3,2,4] x) => (uint8[N,C,2,4] y)"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {head} {{ {body} }}')
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items() if name in used
    )
    found = ir.from_proto(model)
    infer_shapes(found)
    return found


def run(model, image):
    data = ir.to_proto(model).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]


@pytest.mark.parametrize(
    ("body", "more", "kinds"),
    [
        (CHAIN, {}, ["QuantizeLinear", "Pad"]),
        (CHAIN, {"s": [10, -4.2, 0], "scale": np.float32(2)}, ["QuantizeLinear", "Pad"]),
        (CHAIN, {"s": [13.5, 0, 1]}, ["Add", "QuantizeLinear", "Pad"]),
        (CHAIN, {"s": [300, 0, 1]}, ["Add", "QuantizeLinear", "Pad"]),
        ("m = Mul(x, f) a = Add(m, s) y = QuantizeLinear(a, scale, zero)", {}, ["QuantizeLinear"]),
        ("m = Mul(x, f) y = QuantizeLinear(m, scale, zero)", {"s": [0, 0, 0]}, ["QuantizeLinear"]),
        (
            "m = Mul(x, f) d = Pad(m, pads, one) y = QuantizeLinear(d, scale, zero)",
            {"s": [0, 0, 0]},
            ["QuantizeLinear", "Pad"],
        ),
    ],
    ids=["imagenet", "wider steps", "half-way", "beyond 255", "no pad", "no shift", "no shift, padded"],
)
def test_levels_are_the_same(body, more, kinds):
    if "s" in more:
        more = more | {"s": np.array(more["s"], np.float32).reshape(1, 3, 1, 1)}
    model = chain(body, **more)
    values = {name: value.const_value.numpy() for name, value in chain(CHAIN, **more).graph.initializers.items()}
    levels = np.arange(-150, 150)[:, None, None, None] + np.zeros((1, 3, 2, 4))
    image = ((levels * values["scale"] - values["s"]) / values["f"]).astype(np.float32)
    wanted = run(model, image)
    assert {0, 255} <= set(wanted.reshape(-1).tolist())
    assert lower_levels(model.graph) == 1
    passes.RemoveUnusedNodesPass()(model)
    assert [node.op_type for node in model.graph] == kinds
    np.testing.assert_array_equal(run(model, image), wanted)


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (CHAIN, {"f": np.full((1, 3, 1, 1), -1, np.float32)}),
        (CHAIN, {"f": np.ones((1, 3, 2, 4), np.float32)}),
        (CHAIN, {"pads": np.array([0, 0, 1, 0, 0, 1, 0, 0])}),
        (CHAIN, {"pads": np.array([0, 1, 0, 0, 0, 0, 0, 0])}),
        (CHAIN, {"zero": np.int8(4)}),
        (CHAIN.replace("Pad(", 'Pad<mode="edge">('), {}),
        (CHAIN.replace(", pads, one", ", pads"), {}),
        (CHAIN + " e = Exp(a)", {}),
        ("a = Add(x, s) y = QuantizeLinear(a, scale, zero)", {}),
        ("y = QuantizeLinear(x, scale, zero)", {}),
    ],
    ids=[
        *("negative", "per pixel", "rows too", "in front", "int8", "edge", "zeros"),
        *("another reader", "no factor", "nothing before"),
    ],
)
def test_what_would_give_others_stays(body, more):
    model = chain(body, **more) if more.get("zero", np.uint8(0)).dtype == np.uint8 else signed(body, **more)
    assert lower_levels(model.graph) == 0


def signed(body, **more):
    model = chain(body, **more)
    model.graph.outputs[0].dtype = ir.DataType.INT8
    return model


@pytest.mark.parametrize(
    ("mean", "deviation", "kinds"),
    [
        (*IMAGENET, ["QuantizeLinear", "Pad", "Transpose", "Reshape", "QLinearConv"]),
        ((0.5,) * 3, (0.5,) * 3, ["Add", "QuantizeLinear", "Pad", "Transpose", "Reshape"]),
        ((0,) * 3, (1,) * 3, ["QuantizeLinear", "Transpose", "Reshape", "QLinearConv"]),
    ],
    ids=["imagenet", "half steps", "0 to 1"],
)
def test_an_engine_for_8_bit_images(tmp_path, mean, deviation, kinds):
    random = np.random.default_rng(0)
    body = "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w, b) y = Relu(c)"
    head = "(float[N,3,2,4] x) => (float[N,C,H,W] y)"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {head} {{ {body} }}')
    for name, shape in (("w", (16, 3, 3, 3)), ("b", (16,))):
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    path = tmp_path / "float.onnx"
    path.write_bytes(model.SerializeToString())
    image = random.permuted(pixels(mean, deviation), axis=0)
    before = quantize_static(path, lambda: iter([{"x": image}]), ORT_X86_VNNI).qdq
    after = before.clone()
    assert lower_images(after, on_tiles)
    found = [node.op_type for node in after.graph]
    start = found.index("Split") + 1 if "Split" in found else 0  # what spreads weights at load stands before
    assert found[start:][: len(kinds)] == kinds
    np.testing.assert_array_equal(run(after, image), run(before, image))
