"""Float casts: the graph in float16 or bfloat16, with operators that must stay float32 between casts.

Inputs and outputs keep their dtypes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from qpipe.errors import QuantizationError
from qpipe.quant.edits import Names, insert_behind
from qpipe.quant.graph import NEEDED_OPSET, attr_int, converted, name_of
from qpipe.quant.rendering.render import forget_shapes

Half = Literal["float16", "bfloat16"]
LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}
_STAGES = {"float16": "fp16", "bfloat16": "bf16"}
BLOCKED = (
    "If",
    "Loop",
    "Scan",
    "SequenceMap",
    "Range",
    "CumSum",
    "NonMaxSuppression",
    "RoiAlign",
    "TopK",
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "HannWindow",
    "HammingWindow",
    "BlackmanWindow",
    "MelWeightMatrix",
    "LSTM",
    "GRU",
    "RNN",
    "MeanVarianceNormalization",
)
"""Operators without half-precision kernels, or whose subgraphs (or definitions by other operators) expect float32."""
HALF_OPSET = 22
"""First opset whose Conv, ConvTranspose and pooling are defined in bfloat16."""
_FLOAT_ARGUMENTS = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that stay float32 by the operator's specification."""


def cast_half(model: ir.Model, dtype: Half, *, keep_float: tuple[str, ...] = BLOCKED) -> ir.Model:
    """A copy of the graph that computes in half precision, except for operators (types or node names) in `keep_float`.

    What ONNX does not define in the type stays float32; where a later opset does (Conv and pooling in bfloat16), the
    graph is converted to it.

    Raises:
        QuantizationError: a weight is larger than the type can hold; the tensor is named.
    """
    copy = model.clone()
    opset = copy.opset_imports.get("", NEEDED_OPSET)
    nodes = [node for node in copy.graph if node.op_type not in keep_float]
    if opset < HALF_OPSET and any(not takes(node, dtype, opset) and takes(node, dtype, HALF_OPSET) for node in nodes):
        copy, opset = converted(copy, HALF_OPSET), HALF_OPSET
    _Caster(copy.graph, dtype, frozenset(keep_float), opset).run()
    forget_shapes(copy.graph)
    return copy


def half_type(dtype: Half) -> ir.DataType:
    """The type as onnx-ir names it."""
    return ir.DataType.FLOAT16 if dtype == "float16" else ir.DataType.BFLOAT16


def takes(node: ir.Node, dtype: Half, opset: int) -> bool:
    """Whether ONNX defines the operator for the type as for float32; true of operators that ONNX does not know."""
    from onnx import defs

    if node.domain not in {"", "ai.onnx"} or not defs.has(node.op_type):
        return True
    schema = defs.get_schema(node.op_type, opset)
    types = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    allowed = [types.get(formal.type_str, ()) for formal in (*schema.inputs, *schema.outputs)]
    return all(f"tensor({dtype})" in names for names in allowed if "tensor(float)" in names)


_RANKS = frozenset({"Softmax", "LogSoftmax", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "TopK", "MaxPool"})
_CARRIES = frozenset(
    {"Add", "Sub", "Mul", "Neg", "Where", "Cast", "Expand", "Tile", "Concat", "Identity", "Unsqueeze", "Squeeze"}
    | {"Reshape", "Transpose", "Slice", "Gather", "Max", "Min", "ConstantOfShape", "Dropout"}
)
"""What a mask meets on its way to one of `_RANKS`."""


class _Caster:
    def __init__(self, graph: ir.Graph, dtype: Half, keep: frozenset[str], opset: int) -> None:
        self.graph, self.dtype, self.keep, self.opset = graph, dtype, keep, opset
        self.names = Names(graph)
        self.able: dict[str, bool] = {}
        self.half = half_type(dtype)
        self.is_half: set[ir.Value] = set()
        self.casts: dict[tuple[ir.Value, bool], ir.Value] = {}

    def low(self, node: ir.Node) -> bool:
        """Whether the node computes in half precision."""
        if node.graph is not self.graph or node.op_type in self.keep or node.name in self.keep:
            return False
        if node.op_type not in self.able:
            self.able[node.op_type] = takes(node, self.dtype, self.opset)
        return self.able[node.op_type]

    def run(self) -> None:
        nodes = list(self.graph)
        for node in nodes:
            if self.low(node):
                self.is_half.update(value for value in node.outputs if value.dtype == ir.DataType.FLOAT)
                self.retype(node)
        for value in [*self.graph.inputs, *self.graph.initializers.values(), *self.outputs_of(nodes)]:
            if value.dtype == ir.DataType.FLOAT:
                self.feed(value)
        for index, output in enumerate(list(self.graph.outputs)):
            if output in self.is_half:
                self.keep_output(index, output)
        for value in self.is_half:
            value.type = ir.TensorType(self.half)

    @staticmethod
    def outputs_of(nodes: list[ir.Node]) -> list[ir.Value]:
        return [value for node in nodes for value in node.outputs]

    def retype(self, node: ir.Node) -> None:
        """Attributes that name a dtype, or hold a float tensor."""
        for name in ("to", "dtype"):
            if name in node.attributes and attr_int(node, name, 0) == ir.DataType.FLOAT:
                node.attributes[name] = ir.AttrInt64(name, int(self.half))
        value = node.attributes.get("value")
        if node.op_type in {"ConstantOfShape", "Constant"}:
            if value is None and node.op_type == "ConstantOfShape":
                node.attributes["value"] = ir.AttrTensor("value", self.tensor(np.zeros(1, np.float32), node.outputs[0]))
            elif value is not None and value.as_tensor().dtype == ir.DataType.FLOAT:
                array = np.asarray(value.as_tensor().numpy(), np.float32)
                node.attributes["value"] = ir.AttrTensor("value", self.tensor(array, node.outputs[0]))

    def tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]], value: ir.Value) -> ir.TensorProtocol:
        finite = array[np.isfinite(array)]
        if finite.size and float(np.abs(finite).max()) > LARGEST[self.dtype]:
            clipped = np.clip(array, -LARGEST[self.dtype], LARGEST[self.dtype])
            if array.size > 1 or not _only_masks(value):
                readers = ", ".join(sorted({use.node.name or use.node.op_type for use in value.uses()}))
                recipe = f"stages: [{{{_STAGES[self.dtype]}: {{keep_float: [{readers}]}}}}]"
                raise QuantizationError(
                    f"tensor {value.name!r} holds {float(np.abs(finite).max()):.3g}, more than {self.dtype} can",
                    hint=f"keep the nodes that read it in float32: {recipe}",
                )
            array = clipped.astype(np.float32)
        return ir.Tensor(array.astype(self.half.numpy()), dtype=self.half, name=value.name)

    def feed(self, value: ir.Value) -> None:
        """Give every reader the precision that it computes in."""
        for use in list(value.uses()):
            wants_half = self.low(use.node) and use.idx not in _FLOAT_ARGUMENTS.get(use.node.op_type, ())
            if wants_half != (value in self.is_half):
                use.node.replace_input_with(use.idx, self.converted(value, wants_half))

    def converted(self, value: ir.Value, to_half: bool) -> ir.Value:
        key = (value, to_half)
        if key not in self.casts:
            name = self.names.fresh(f"{value.name}_{self.dtype if to_half else 'float32'}")
            self.casts[key] = self.stored(value, name) if value.is_initializer() else self.cast(value, name, to_half)
        return self.casts[key]

    def stored(self, value: ir.Value, name: str) -> ir.Value:
        """An initializer in half precision; the float32 one goes if nobody reads it any more."""
        assert value.const_value is not None
        tensor = self.tensor(np.asarray(value.const_value.numpy(), np.float32), value)
        tensor.name = name
        half = ir.Value(name=name, const_value=tensor, shape=value.shape, type=ir.TensorType(self.half))
        self.graph.register_initializer(half)
        if all(self.low(use.node) for use in value.uses()) and not value.is_graph_output():
            self.graph.initializers.pop(name_of(value), None)
        return half

    def cast(self, value: ir.Value, name: str, to_half: bool) -> ir.Value:
        target = self.half if to_half else ir.DataType.FLOAT
        node = ir.node("Cast", [value], attributes={"to": int(target)}, name=f"{name}/cast")
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(target)
        insert_behind(self.graph, value, [node])
        return node.outputs[0]

    def keep_output(self, index: int, output: ir.Value) -> None:
        """The graph's output keeps its name and its float32."""
        name, shape = name_of(output), output.shape
        output.name = self.names.fresh(f"{name}_{self.dtype}")
        back = self.cast(output, name, to_half=False)
        back.shape = shape
        self.graph.outputs[index] = back


def _only_masks(value: ir.Value) -> bool:
    """Whether a huge number reaches nothing but what ranks or bounds: there its meaning survives the clip.

    Attention adds it to scores before Softmax, pooling puts it where no token is; as a factor it would be another one.
    """
    waiting, seen = [value], {value}
    while waiting:
        value = waiting.pop()
        if value.is_graph_output() or not value.uses():
            return False
        for use in value.uses():
            if use.node.op_type in _RANKS or (use.node.op_type == "Clip" and use.idx > 0):
                continue
            if use.node.op_type not in _CARRIES:
                return False
            waiting += [output for output in use.node.outputs if output not in seen]
            seen.update(use.node.outputs)
    return True
