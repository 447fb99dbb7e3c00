"""Attention as one kernel: as many spellings as exporters have give what they gave, and what is not proven stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from qpipe_onnxruntime.lower.attention import lower_attention
from qpipe_onnxruntime.lower.choices import no_packs
from qpipe_onnxruntime.lower.passes import lower

from qpipe.quant.graph import tidy
from qpipe.quant.rendering.dynamic import plan_dynamic, render_dynamic
from qpipe.quant.schemes import ORT_X86_VNNI

HEADS, SIZE = 2, 8
WIDTH = HEADS * SIZE
LOWEST = np.float32(np.finfo(np.float32).min)
SIZES = ((1, 6), (3, 4))


def fuse_attention(model: onnx.ModelProto) -> tuple[str, ...]:
    """`lower_attention` on a graph as onnx has it; untouched where nothing matches."""
    opened = ir.from_proto(model)
    notes = lower_attention(opened)
    if notes:
        model.CopyFrom(ir.to_proto(opened))
    return notes


@dataclass
class Net:
    """One or more blocks of attention over `x` [N, L, 16], spelled as asked."""

    shapes: str = "computed"
    scale: str = "mul"
    mask: str = ""
    cross: bool = False
    end: str = "same"
    heads: str = "counted"
    opset: int = 17
    batch: str = "N"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    added: str = ""

    def op(self, kind: str, *inputs: object, into: str = "", **attributes: object) -> str:
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        output = into or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def constant(self, value: object) -> str:
        name = f"c{len(self.weights)}"
        array = np.asarray(value)
        self.weights[name] = array.astype(np.int64) if array.dtype.kind == "i" else array.astype(np.float32)
        return name

    def normal(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(len(self.weights)).normal(size=shape) / np.sqrt(WIDTH)

    def length(self, value: str, axis: int) -> str:
        return self.op("Unsqueeze", self.op("Gather", self.op("Shape", value), axis, axis=0), [0])

    def projected(self, source: str) -> str:
        if self.shapes == "split":
            if len(self.parts) == 0:
                whole = self.op("MatMul", source, self.normal(WIDTH, 3 * WIDTH))
                self.parts = [f"{whole}_{number}" for number in range(3)]
                sizes = self.constant([WIDTH] * 3)
                self.nodes.append(helper.make_node("Split", [whole, sizes], self.parts, name="split", axis=2))
            return self.parts.pop()
        if self.shapes == "flat":
            flat = self.op("Reshape", source, [-1, WIDTH])
            return self.op("Gemm", flat, self.normal(WIDTH, WIDTH), self.normal(WIDTH))
        return self.op("Add", self.op("MatMul", source, self.normal(WIDTH, WIDTH)), self.normal(WIDTH))

    def cut(self, source: str) -> str:
        count = {"counted": HEADS, "left": -1}[self.heads]
        shape: object = {
            "zeros": [0, 0, count, SIZE],
            "rows": [0, -1, HEADS, SIZE],
        }.get(self.shapes)
        projected = self.projected(source)
        asked = projected if self.shapes == "split" else source
        if shape is None:
            shape = self.op("Concat", *(self.length(asked, axis) for axis in (0, 1)), [count], [SIZE], axis=0)
        return self.op("Reshape", projected, shape)

    def scaled(self, value: str, side: str) -> str:
        factor = 1 / np.sqrt(SIZE)
        if side == "scores" and self.scale == "lengths":
            last = self.op("Slice", self.op("Shape", self.q), [-1], [2**62])
            return self.op("Div", value, self.op("Sqrt", self.op("Cast", last, to=TensorProto.FLOAT)))
        if side == "scores" and self.scale == "double":
            self.weights["double"] = np.float64(2.75)
            return self.op("Div", value, self.op("Cast", "double", to=TensorProto.FLOAT))
        spelled = {
            ("scores", "mul"): ("Mul", value, factor),
            ("scores", "left"): ("Mul", factor, value),
            ("scores", "div"): ("Div", value, 1 / factor),
            ("scores", "negative"): ("Mul", value, -factor),
            ("q", "q"): ("Div", value, 1 / factor),
            ("q", "both"): ("Mul", value, np.sqrt(factor)),
            ("k", "both"): ("Mul", value, np.sqrt(factor)),
        }.get((side, self.scale))
        return self.op(*spelled) if spelled else value

    def masked(self, scores: str, rows: str, columns: str) -> str:
        if not self.mask:
            return scores
        lengths = [self.op("Squeeze", self.length(one, 1)) for one in (rows, columns)]
        if self.mask == "asked":
            heads = self.op("Shape", self.q)
            lengths = [self.op("Gather", heads, 2, axis=0)] * 2
        grid = [self.op("Range", 0, one, 1) for one in lengths]
        below = self.op("GreaterOrEqual", self.op("Unsqueeze", grid[0], [1]), self.op("Unsqueeze", grid[1], [0]))
        spread = self.op("Unsqueeze", "mask", [1, 2])
        kept = self.op("Cast", spread, to=TensorProto.BOOL)
        low = {"two": -1e9}.get(self.mask, LOWEST)
        causal = partial(self.op, "Where", below, 0.0, low)
        spelled = {
            "asked": lambda: self.op("Where", below, scores, LOWEST),
            "where": lambda: self.op("Where", below, scores, LOWEST),
            "where-turned": lambda: self.op("Where", self.op("Not", below), LOWEST, scores),
            "where-infinite": lambda: self.op("Where", below, scores, -np.inf),
            "after-scale": lambda: self.op("Mul", self.op("Add", scores, causal()), 0.5),
            "two": lambda: self.op("Add", causal(), self.masked_by_keys(scores, spread, low)),
            "two-lowest": lambda: self.op("Add", causal(), self.masked_by_keys(scores, spread, low)),
            "keys": lambda: self.masked_by_keys(scores, spread, low),
            "all": lambda: self.op("Add", scores, self.op("Where", self.op("And", below, kept), 0.0, LOWEST)),
            "infinite": lambda: self.op("Add", scores, self.op("Where", kept, 0.0, -np.inf)),
            "causal": lambda: self.op("Add", scores, self.op("Unsqueeze", causal(), [0, 1])),
            "matrix": lambda: self.op("Add", causal(), scores),
            "given": lambda: self.op("Add", scores, "bias"),
            "fixed": lambda: self.op("Add", scores, np.where(np.triu(np.ones((6, 6)), 1), -np.inf, 0)),
            "fixed-empty-row": lambda: self.op(
                "Add", scores, np.where(np.arange(6)[:, None] == 2, -np.inf, np.zeros((6, 6)))
            ),
            "heads": lambda: self.op("Add", scores, self.normal(1, HEADS, 1, 1)),
        }
        return spelled[self.mask]()

    def masked_by_keys(self, scores: str, spread: str, low: float) -> str:
        if not self.added:
            closed = self.op("Sub", 1.0, self.op("Cast", spread, to=TensorProto.FLOAT))
            self.added = self.op("Mul", closed, low)
        return self.op("Add", scores, self.added)

    def block(self, source: str, other: str = "") -> str:
        other = other or source
        self.q = self.op("Transpose", self.cut(source), perm=[0, 2, 1, 3])
        k, v = self.cut(other), self.op("Transpose", self.cut(other), perm=[0, 2, 1, 3])
        if self.scale == "both":
            k = self.op("Transpose", self.scaled(self.op("Transpose", k, perm=[0, 2, 1, 3]), "k"), perm=[0, 1, 3, 2])
        else:
            k = self.op("Transpose", k, perm=[0, 2, 3, 1])
        scores = self.op("MatMul", self.scaled(self.q, "q"), k)
        probabilities = self.op("Softmax", self.masked(self.scaled(scores, "scores"), source, other), axis=-1)
        self.outputs += {"scores": [scores], "probabilities": [probabilities]}.get(self.end, [])
        turned = self.op("Transpose", self.op("MatMul", probabilities, v), perm=[0, 2, 1, 3])
        if self.end == "asked":
            lengths = [self.length(turned, axis) for axis in (0, 1)]
            return self.op("Reshape", turned, self.op("Concat", *lengths, [WIDTH], axis=0))
        if self.end == "kept":
            lengths = [self.op("Mul", self.length(turned, 0), self.length(turned, 1))]
            flat = self.op("Reshape", turned, self.op("Concat", *lengths, [WIDTH], axis=0))
            return self.op("Reshape", flat, self.op("Shape", source))
        shape: object = {"zero": [0, 0, -1], "flat": [-1, WIDTH], "copied": [0, -1, 0, SIZE // 2]}.get(self.end)
        if shape is None and self.shapes == "computed":
            shape = self.op("Concat", *(self.length(source, axis) for axis in (0, 1)), [WIDTH], axis=0)
        return self.op("Reshape", turned, [0, 0, WIDTH] if shape is None else shape)

    def model(self, layers: int = 1) -> onnx.ModelProto:
        value = "x"
        for _ in range(layers):
            found = self.block(value, "y" if self.cross else "")
            value = found if self.end in ("flat", "copied") else self.op("Add", found, value)
        self.outputs.append(self.op("Identity", value, into="out"))
        inputs = [("x", TensorProto.FLOAT, ["N", "L", WIDTH]), ("mask", TensorProto.INT64, ["N", "T"])]
        inputs += [("y", TensorProto.FLOAT, [self.batch, "T", WIDTH])] * self.cross
        inputs += [("bias", TensorProto.FLOAT, ["N", 1, "L", "L"])] * (self.mask == "given")
        graph = helper.make_graph(
            self.nodes,
            "attention",
            [helper.make_tensor_value_info(*one) for one in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def rows(batch: int, length: int, *, masked: str = "some") -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch * 10 + length)
    mask = np.ones((batch, length), np.int64)
    if masked == "some":
        mask[-1, length // 2 :] = 0
    elif masked == "all":
        mask[-1] = 0
    x = random.normal(size=(batch, length, WIDTH)).astype(np.float32)
    bias = np.zeros((batch, 1, length, length), np.float32)
    return {"x": x, "y": random.normal(size=x.shape).astype(np.float32), "mask": mask, "bias": bias}


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["out"], {one.name: feed[one.name] for one in session.get_inputs()})[0]


def count(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def same(
    before: onnx.ModelProto, after: onnx.ModelProto, sizes: tuple[tuple[int, int], ...] = SIZES, **how: str
) -> None:
    for batch, length in sizes:
        feed = rows(batch, length, **how)
        expected = run(before, feed)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(run(after, feed), expected, rtol=1e-5, atol=1e-6)


def fused(net: Net, layers: int = 1) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    before = net.model(layers)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    notes = fuse_attention(after)
    assert len(notes) == 1
    assert "(Attention)" in notes[0]
    assert count(after)["Attention"] == layers
    assert count(after)["Softmax"] == 0
    onnx.checker.check_model(after)
    return before, after


SPELLINGS = [
    *(Net(shapes=shapes) for shapes in ("zeros", "rows", "computed", "flat")),
    *(Net(scale=scale) for scale in ("left", "div", "q", "both", "lengths", "double", "")),
    *(Net(mask=mask) for mask in ("keys", "all", "causal", "matrix", "where", "where-turned", "two", "heads")),
    *(Net(cross=True, mask=mask) for mask in ("", "keys")),
    *(Net(shapes=shapes, heads="left", mask="all") for shapes in ("zeros", "computed")),
    *(Net(end=end, mask="all") for end in ("zero", "flat", "asked")),
    *(Net(shapes="split", scale=scale, mask="asked") for scale in ("mul", "lengths")),
    Net(shapes="flat", mask="all"),
    Net(shapes="flat", scale="both", mask="keys", cross=True),
    Net(opset=13),
    Net(opset=23, mask="keys"),
]


def spelling(net: Net) -> str:
    plain = Net()
    keys = ("shapes", "scale", "mask", "cross", "end", "heads", "opset")
    return " ".join(f"{key}={getattr(net, key)}" for key in keys if getattr(net, key) != getattr(plain, key)) or "plain"


@pytest.mark.parametrize("net", SPELLINGS, ids=spelling)
def test_each_spelling_gives_what_it_gave(net):
    before, after = fused(replace(net, nodes=[], weights={}, outputs=[]))
    assert count(after)["MatMul"] + count(after)["Gemm"] == (1 if net.shapes == "split" else 3)
    assert count(after)["Transpose"] == 0
    same(before, after)


def test_queries_and_keys_of_other_lengths():
    before, after = fused(Net(cross=True, mask="keys"))
    feed = rows(2, 6)
    feed["x"] = feed["x"][:, :4]
    np.testing.assert_allclose(run(after, feed), run(before, feed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", ["", "keys", "where"])
def test_lengths_of_one(mask):
    before, after = fused(Net(mask=mask))
    same(before, after, ((1, 1), (2, 1)), masked="none")


@pytest.mark.parametrize("mask", ["keys", "all"])
def test_a_row_that_sees_nothing_is_what_it_was(mask):
    before, after = fused(Net(mask=mask))
    same(before, after, masked="all")


def test_a_constant_mask_may_hold_infinities_where_each_row_has_something_left():
    before, after = fused(Net(mask="fixed"))
    same(before, after, ((1, 6), (3, 6)), masked="none")


def test_layers_share_one_expanded_mask_and_no_shape_is_computed_for_heads():
    before, after = fused(Net(mask="keys", shapes="computed", heads="left"), layers=3)
    assert count(after)["Expand"] == 1
    assert count(after)["Concat"] == 1
    assert count(after)["Transpose"] == 0
    same(before, after)


def test_a_dynamically_quantized_graph_gives_the_same_numbers():
    model = tidy(ir.from_proto(Net(mask="keys", heads="left").model(2)))
    before = ir.to_proto(render_dynamic(model, plan_dynamic(model, ORT_X86_VNNI)))
    after = onnx.ModelProto()
    after.CopyFrom(before)
    assert fuse_attention(after) == ("2 attention blocks run as one kernel each (Attention)",)
    assert count(after)["MatMulIntegerToFloat"] == 6
    assert count(after)["Reshape"] == count(after)["Transpose"] == 0
    for batch, length in SIZES:
        feed = rows(batch, length)
        # A rounding that falls to the other side is one step of 1/255 of the largest input.
        np.testing.assert_allclose(run(after, feed), run(before, feed), atol=0.02)


def test_weights_beside_the_graph_are_kept(tmp_path):
    path = tmp_path / "model.onnx"
    before = Net(mask="keys").model()
    before.graph.initializer.append(numpy_helper.from_array(np.ones((WIDTH, 300), np.float32), "wide"))
    before.graph.node.append(helper.make_node("MatMul", ["out", "wide"], ["more"]))
    before.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    copy = onnx.ModelProto()
    copy.CopyFrom(before)
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=512)
    model = ir.load(path)
    assert lower_attention(model)
    ir.save(model, tmp_path / "after.onnx", external_data="after.bin")
    after = onnx.load(tmp_path / "after.onnx")
    same(before, after)


def test_a_block_that_ends_the_graph_keeps_the_shape_of_the_output(tmp_path):
    model = Net(end="flat").model()
    model.graph.node.pop()  # the Identity
    model.graph.node[-1].output[0] = "out"
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["M", WIDTH]))
    onnx.save(model, tmp_path / "before.onnx")
    assert lower(tmp_path / "before.onnx", tmp_path / "after.onnx", no_packs)
    assert onnx.load(tmp_path / "after.onnx").graph.output[0] == model.graph.output[0]


def test_an_onnxruntime_that_was_not_compared_keeps_its_operators(monkeypatch):
    model = Net().model()
    monkeypatch.setattr("qpipe_onnxruntime.lower.attention.onnxruntime_version", lambda: "1.30.2")
    assert fuse_attention(model) == ()


def quantized_product(net: Net) -> onnx.ModelProto:
    model = net.model()
    product = next(node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] not in net.weights)
    pairs = []
    for name in product.input:
        for kind, source, to in (("Quantize", name, f"{name}_q"), ("Dequantize", f"{name}_q", f"{name}_dq")):
            pairs.append(helper.make_node(f"{kind}Linear", [source, "step", "zero"], [to]))
    product.input[:] = [f"{name}_dq" for name in product.input]
    at = list(model.graph.node).index(product)
    for one in reversed(pairs):
        model.graph.node.insert(at, one)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.05), "step"))
    model.graph.initializer.append(numpy_helper.from_array(np.int8(0), "zero"))
    return model


def altered(kind: str, change: Callable[[onnx.NodeProto, onnx.ModelProto], None]) -> onnx.ModelProto:
    model = Net(shapes="zeros").model()
    change(next(node for node in model.graph.node if node.op_type == kind), model)
    return model


def set_axis(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    node.attribute[0].i = 1


def set_perm(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    node.attribute[0].ints[:] = [0, 2, 1, 3][::-1]


def dynamic_heads(node: onnx.NodeProto, model: onnx.ModelProto) -> None:
    node.input[1] = "shape"
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [4]))


LEFT = {
    "scores are an output": lambda: Net(end="scores").model(),
    "probabilities are an output": lambda: Net(end="probabilities").model(),
    "the last reshape copies an axis of the heads": lambda: Net(end="copied").model(),
    "scaled after the mask": lambda: Net(mask="after-scale").model(),
    "a scale below zero": lambda: Net(scale="negative").model(),
    "a mask from outside may hold anything": lambda: Net(mask="given").model(),
    "-inf from a Where over keys": lambda: Net(mask="infinite").model(),
    "-inf as a fill": lambda: Net(mask="where-infinite").model(),
    "a constant row of -inf": lambda: Net(mask="fixed-empty-row").model(),
    "two masks that add up to -inf": lambda: Net(mask="two-lowest").model(),
    "batches that may differ": lambda: Net(cross=True, batch="M").model(),
    "quantized products": lambda: quantized_product(Net()),
    "softmax along another axis": lambda: altered("Softmax", set_axis),
    "heads in another order": lambda: altered("Transpose", set_perm),
    "a number of heads that is not known": lambda: altered("Reshape", dynamic_heads),
    "its length is asked for what stays": lambda: Net(end="kept").model(),
    "softmax of opset 11 flattens": lambda: Net(opset=11).model(),
}


@pytest.mark.parametrize("make", LEFT.values(), ids=LEFT)
def test_what_is_not_the_same_or_not_proven_stays_bit_for_bit(make):
    model = make()
    before = model.SerializeToString(deterministic=True)
    assert fuse_attention(model) == ()
    assert model.SerializeToString(deterministic=True) == before
