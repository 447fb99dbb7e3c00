"""Hard swish and hard sigmoid as operators that all runtimes have: the converter writes them out as arithmetic.

`RELU_0_TO_1` has no kernel in XNNPACK and none in tflite-micro; a fused Relu6 has both. `HARD_SWISH` is float in
XNNPACK and int8 elsewhere; an NPU's compiler refuses it in float, and takes the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpipe_litert.flatbuffer import builtin, listed
from qpipe_litert.flatbuffer_edit import code_index, drop_unused, held, opened, packed

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT

SIXTH, HALF, THREE, SIX = 1 / 6, 0.5, 3.0, 6.0
"""min(max(x + 3, 0), 6) / 6. Source: Howard et al. 2019 (arXiv:1905.02244), section 5.2."""
_CLOSE = 1e-6


def rewrite_hard_sigmoid(data: bytes) -> bytes:
    """The same model with hard sigmoids as Relu6 and a product, and x · hardsigmoid(x) as one operator."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    view = _View(opened(data))
    changed = [view.as_relu6(relu) for relu in view.all_of(BuiltinOperator.RELU_0_TO_1)]
    changed += [view.as_hard_swish(add) for add in view.all_of(BuiltinOperator.ADD)]
    if not any(changed):
        return data
    drop_unused(view.model)
    return packed(view.model, len(data))


def write_out_hard_swish(data: bytes) -> bytes:
    """The same model with each float `HARD_SWISH` as x · (Relu6(x + 3) / 6)."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    view = _View(opened(data))
    changed = [view.as_arithmetic(swish) for swish in view.all_of(BuiltinOperator.HARD_SWISH)]
    return packed(view.model, len(data)) if any(changed) else data


class _View:
    """The main subgraph of a model, for edits."""

    def __init__(self, model: ModelT) -> None:
        self.model = model
        self.graph = model.subgraphs[0]

    def all_of(self, code: int) -> list[OperatorT]:
        """Operators of a kind, as they stand now."""
        return [op for op in self.graph.operators if self._code(op) == code]

    def as_relu6(self, relu: OperatorT) -> bool:
        """min(max(y, 0), 1) becomes min(max(6 y, 0), 6) / 6: 6 y is x + 3 where y is x / 6 + .5."""
        from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator

        add = self._maker(relu.inputs[0], BuiltinOperator.ADD)
        mul = self._maker(self._beside(add, HALF), BuiltinOperator.MUL)
        x = self._beside(mul, SIXTH)
        six_fold = self._six_fold(relu) if add is None or mul is None or x is None else add
        if six_fold is add and x is not None:
            add.inputs = [x, self._number(THREE)]
            self.graph.operators.remove(mul)
        six_fold.builtinOptions.fusedActivationFunction = ActivationFunctionType.RELU6
        self._replace(relu, self._product([int(six_fold.outputs[0]), self._number(SIXTH)], relu.outputs))
        return True

    def as_arithmetic(self, swish: OperatorT) -> bool:
        """X · (Relu6(x + 3) / 6) instead of a float operator; whether it was float."""
        from ai_edge_litert.schema_py_generated import (
            ActivationFunctionType,
            AddOptionsT,
            BuiltinOperator,
            BuiltinOptions,
            TensorType,
        )

        x, y = int(swish.inputs[0]), int(swish.outputs[0])
        if self.graph.tensors[x].type != TensorType.FLOAT32:
            return False
        cut, share = self._like(y, b"_relu6"), self._like(y, b"_share")
        options = AddOptionsT()
        options.fusedActivationFunction = ActivationFunctionType.RELU6
        add = self._operator(BuiltinOperator.ADD, [x, self._number(THREE)], [cut])
        add.builtinOptionsType, add.builtinOptions = BuiltinOptions.AddOptions, options
        self._replace(swish, add, self._product([cut, self._number(SIXTH)], [share]), self._product([x, share], [y]))
        return True

    def _six_fold(self, relu: OperatorT) -> OperatorT:
        """What makes six times the input of this operator: the weighted one before it, or a product."""
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        kinds = (BuiltinOperator.CONV_2D, BuiltinOperator.DEPTHWISE_CONV_2D, BuiltinOperator.FULLY_CONNECTED)
        source = int(relu.inputs[0])
        made = next((one for kind in kinds if (one := self._maker(source, kind)) is not None), None)
        if made is not None and not _activation(made) and self._multiplied(made, SIX):
            return made
        product = self._product([source, self._number(SIX)], [self._like(source, b"_six_fold")])
        self.graph.operators.insert(self.graph.operators.index(relu), product)
        return product

    def _multiplied(self, weighted: OperatorT, factor: float) -> bool:
        """Weights and bias times a factor, where they are constants of this operator alone; whether they were."""
        own = [self.graph.tensors[int(index)] for index in listed(weighted.inputs)[1:] if index >= 0]
        buffers = [tensor.buffer for tensor in self.graph.tensors]
        if any(self.model.buffers[one.buffer].data is None or buffers.count(one.buffer) > 1 for one in own):
            return False
        if any(len(self._readers(int(index))) > 1 for index in listed(weighted.inputs)[1:]):
            return False
        for one in own:
            buffer = self.model.buffers[one.buffer]
            buffer.data = (held(buffer, np.float32) * np.float32(factor)).view(np.uint8)
        return True

    def as_hard_swish(self, add: OperatorT) -> bool:
        """The forms x · (Relu6(x + 3) / 6) and (x · Relu6(x + 3)) / 6 become one operator; whether it was one."""
        from ai_edge_litert.schema_py_generated import (
            ActivationFunctionType,
            BuiltinOperator,
            BuiltinOptions,
            HardSwishOptionsT,
        )

        x = self._beside(add, THREE, activation=ActivationFunctionType.RELU6)
        first = self._reader(add, BuiltinOperator.MUL) if x is not None else None  # a look at every operator
        last = self._reader(first, BuiltinOperator.MUL)
        if first is None or last is None:
            return False
        other, end = self._other(first, add), self._other(last, first)
        if not ((self._is(other, SIXTH) and end == x) or (other == x and self._is(end, SIXTH))):
            return False
        last.opcodeIndex = code_index(self.model, BuiltinOperator.HARD_SWISH, version=1)
        last.builtinOptionsType, last.builtinOptions = BuiltinOptions.HardSwishOptions, HardSwishOptionsT()
        last.inputs = [x]
        self.graph.operators.remove(add)
        self.graph.operators.remove(first)
        return True

    def _code(self, op: OperatorT) -> int:
        return builtin(self.model.operatorCodes[op.opcodeIndex])

    def _readers(self, tensor: int) -> list[OperatorT]:
        return [op for op in self.graph.operators if tensor in listed(op.inputs)]

    def _maker(self, tensor: int | None, code: int) -> OperatorT | None:
        """What makes a tensor that only one operator reads."""
        if tensor is None or tensor in listed(self.graph.outputs) or len(self._readers(tensor)) != 1:
            return None
        made = next((op for op in self.graph.operators if tensor in listed(op.outputs)), None)
        return made if made is not None and self._code(made) == code else None

    def _reader(self, op: OperatorT | None, code: int) -> OperatorT | None:
        """The only operator that reads what this one makes, where it is of that kind and nothing is fused into it."""
        made = None if op is None else int(op.outputs[0])
        readers = [] if made is None or made in listed(self.graph.outputs) else self._readers(made)
        plain = len(readers) == 1 and self._code(readers[0]) == code and not _activation(readers[0])
        return readers[0] if plain else None

    def _beside(self, op: OperatorT | None, value: float, *, activation: int = 0) -> int | None:
        """The other operand of an operator that has this constant as one, and this activation."""
        if op is None or _activation(op) != activation:
            return None
        found = [int(index) for index in op.inputs if not self._is(int(index), value)]
        return found[0] if len(found) == 1 else None

    def _other(self, op: OperatorT, source: OperatorT) -> int:
        made = int(source.outputs[0])
        return next((int(index) for index in op.inputs if index != made), made)

    def _is(self, tensor: int, value: float) -> bool:
        """Whether a tensor is a float constant with this value everywhere."""
        from ai_edge_litert.schema_py_generated import TensorType

        buffer = self.model.buffers[self.graph.tensors[tensor].buffer]
        if buffer.data is None or self.graph.tensors[tensor].type != TensorType.FLOAT32:
            return False
        found = held(buffer, np.float32)
        return bool(found.size) and bool((np.abs(found - value) < _CLOSE).all())

    def _number(self, value: float) -> int:
        """A new float constant."""
        from ai_edge_litert.schema_py_generated import BufferT

        buffer = BufferT()
        buffer.data = np.array([value], np.float32).view(np.uint8)
        self.model.buffers.append(buffer)
        name = f"hard_sigmoid_{len(self.graph.tensors)}".encode()
        return self._add(name, np.array([1], np.int32), len(self.model.buffers) - 1)

    def _like(self, tensor: int, suffix: bytes) -> int:
        """A new float tensor of the same shape."""
        old = self.graph.tensors[tensor]
        made = self._add(bytes(old.name) + suffix, old.shape, 0)
        self.graph.tensors[made].shapeSignature = old.shapeSignature
        return made

    def _add(self, name: bytes, shape: object, buffer: int) -> int:
        from ai_edge_litert.schema_py_generated import TensorT, TensorType

        made = TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, TensorType.FLOAT32
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def _product(self, inputs: list[int], outputs: object) -> OperatorT:
        from ai_edge_litert.schema_py_generated import BuiltinOperator, BuiltinOptions, MulOptionsT

        made = self._operator(BuiltinOperator.MUL, inputs, outputs)
        made.builtinOptionsType, made.builtinOptions = BuiltinOptions.MulOptions, MulOptionsT()
        return made

    def _operator(self, code: int, inputs: list[int], outputs: object) -> OperatorT:
        from ai_edge_litert.schema_py_generated import OperatorT

        made = OperatorT()
        made.opcodeIndex = code_index(self.model, code, version=1)
        made.inputs, made.outputs = inputs, outputs
        return made

    def _replace(self, old: OperatorT, *new: OperatorT) -> None:
        at = self.graph.operators.index(old)
        self.graph.operators[at : at + 1] = new


def _activation(op: OperatorT) -> int:
    return int(getattr(op.builtinOptions, "fusedActivationFunction", 0))
