"""Q/DQ images as onnxruntime's integer operators in NHWC, convolutions of few channels on packs of pixels.

onnxruntime makes the same operators of Q/DQ pairs by itself. It leaves a Transpose around each of them where the first
tensor of a residual branch comes from a float operator, and it knows no packs.
Source: onnxruntime, docs/ContribOperators.md (QLinearConv, QLinearAdd, QLinearConcat, QLinearAveragePool, NhwcMaxPool).
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import common as passes

from qpipe.quant.graph import attr_int, attr_ints, attr_string, infer_shapes
from qpipe.quant.rendering.matmul import MICROSOFT
from qpipe.quant.rendering.render import forget_shapes
from qpipe_onnxruntime.lower.choices import Choice
from qpipe_onnxruntime.lower.convolution import integer_convolution
from qpipe_onnxruntime.lower.images import Images
from qpipe_onnxruntime.lower.islands import Island, Quantized, island, sizes
from qpipe_onnxruntime.lower.levels import lower_levels
from qpipe_onnxruntime.lower.spread import Spread, store_small

ELEMENTWISE = {"Add": "QLinearAdd", "Mul": "QLinearMul"}
POOLS = {"AveragePool": "QLinearAveragePool", "GlobalAveragePool": "QLinearGlobalAveragePool"}


def lower_images(model: ir.Model, choose: Choice) -> tuple[str, ...]:
    """Rewrite the convolutions of a Q/DQ graph, and what stands between them, as NHWC operators, in place.

    Only convolutions with uint8 activations, int8 weights around zero and an int32 bias (or none) are taken; the rest
    of the graph sees NCHW images as before. The results are the same integers. Gives a note on what was changed,
    nothing where no convolution was taken.

    Args:
        model: a Q/DQ graph.
        choose: which convolutions of few channels run on packs of pixels.
    """
    if not any(node.op_type == "Conv" for node in model.graph):
        return ()
    infer_shapes(model)
    lower_levels(model.graph)
    lowering = _Lowering(model.graph, choose)
    for node in list(model.graph):
        lowering.take(node)
    if lowering.count["Conv"]:
        model.opset_imports.setdefault(MICROSOFT, 1)
        passes.RemoveUnusedNodesPass()(model)
        lowering.small = store_small(model.graph, lowering.spreads)
    forget_shapes(model.graph)
    return lowering.notes()


class _Lowering:
    def __init__(self, graph: ir.Graph, choose: Choice) -> None:
        self.graph, self.images, self.choose = graph, Images(graph), choose
        self.count: Counter[str] = Counter()
        self.spreads: list[Spread] = []
        self.small = 0

    def notes(self) -> tuple[str, ...]:
        """What was changed."""
        if not self.count["Conv"]:
            return ()
        packed = f", {len(self.spreads)} of them on packs of pixels" if self.spreads else ""
        packed += f" (weights of {self.small} are spread over packs at load)" if self.small else ""
        return (f"{self.count['Conv']} convolutions are integer operators in NHWC in the engine{packed}",)

    def take(self, node: ir.Node) -> None:
        """Rewrite this node if it is one that can be."""
        if node.domain not in ("", "ai.onnx") or attr_string(node, "auto_pad", "NOTSET") != "NOTSET":
            return
        if node.op_type == "Conv":
            self.convolution(node)
        elif node.op_type in POOLS:
            self.average(node)
        elif node.op_type == "MaxPool":
            self.maximum(node)
        elif node.op_type in ELEMENTWISE:
            self.elementwise(node)
        elif node.op_type == "Concat" and attr_int(node, "axis", 0) in (1, -3):
            self.concatenation(node)

    def convolution(self, node: ir.Node) -> None:
        found = island(node, self.graph, images=1)
        made = integer_convolution(found, self.images, self.choose) if found is not None else None
        if found is None or made is None:
            return
        if made.spread is not None:
            self.spreads.append(made.spread)
        self.write(found, made.node, made.packs.result)

    def average(self, node: ir.Node) -> None:
        found = self.between(node, 1)
        if found is None or set(attr_ints(node, "dilations", (1,))) != {1}:
            return
        attributes = {name: value for name, value in node.attributes.items() if name != "dilations"}
        inputs = [*self.operand(found.inputs[0], 1), *found.output.parameters]
        self.replace(
            found, POOLS[node.op_type], inputs, {**attributes, "channels_last": ir.AttrInt64("channels_last", 1)}
        )

    def maximum(self, node: ir.Node) -> None:
        found = self.between(node, 1)
        if found is None or not found.inputs[0].same_grid(found.output) or attr_int(node, "storage_order", 0):
            return
        attributes = {name: value for name, value in node.attributes.items() if name != "storage_order"}
        self.replace(found, "NhwcMaxPool", self.operand(found.inputs[0], 1)[:1], attributes)

    def elementwise(self, node: ir.Node) -> None:
        found = self.between(node, 2)
        if found is None:
            return
        left, right = found.inputs
        shape = sizes(left.values)
        # Packs are for operands of one size: broadcasting needs channels apart.
        packs = self.images.packs(left.values) if shape is not None and shape == sizes(right.values) else 1
        inputs = [*self.operand(left, packs), *self.operand(right, packs), *found.output.parameters]
        self.replace(found, ELEMENTWISE[node.op_type], inputs, {}, packs)

    def concatenation(self, node: ir.Node) -> None:
        found = self.between(node, len(node.inputs))
        if found is None:
            return
        inputs = [*found.output.parameters, *(value for item in found.inputs for value in self.operand(item, 1))]
        self.replace(found, "QLinearConcat", inputs, {"axis": ir.AttrInt64("axis", 3)})

    def between(self, node: ir.Node, images: int) -> Island | None:
        """The island of an operator that is worth it between lowered neighbours alone."""
        found = island(node, self.graph, images)
        return found if found and any(self.images.has(item.values) for item in found.inputs[:images]) else None

    def operand(self, item: Quantized, packs: int) -> list[ir.Value]:
        return [self.images.get(item.values, packs), *item.parameters]

    def replace(
        self, found: Island, op: str, inputs: list[ir.Value], attributes: dict[str, ir.Attr], packs: int = 1
    ) -> None:
        self.write(found, ir.node(op, inputs, attributes, domain=MICROSOFT, name=found.node.name), packs)

    def write(self, found: Island, new: ir.Node, packs: int) -> None:
        self.count[found.node.op_type] += 1
        found.node.name = f"{found.node.name}/float"  # it goes with the next clean-up
        self.graph.insert_after(found.quantizer, new)
        self.images.put(found.output.values, packs, new.outputs[0])
