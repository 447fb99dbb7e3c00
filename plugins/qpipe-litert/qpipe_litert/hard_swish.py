"""Hard swish and hard sigmoid as operators that all runtimes have: the converter writes them out as arithmetic.

`RELU_0_TO_1` has no kernel in XNNPACK and none in tflite-micro; `ADD` with a fused Relu6 has both. `HARD_SWISH` is for
XNNPACK, in float; an NPU's compiler refuses it in float, and takes the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpipe_litert.flatbuffer import builtin, listed
from qpipe_litert.flatbuffer_edit import code_index, drop_unused, held, opened, packed

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT

SIXTH, HALF, THREE = 1 / 6, 0.5, 3.0
"""min(max(x + 3, 0), 6) / 6. Source: Howard et al. 2019 (arXiv:1905.02244), section 5.2."""
_CLOSE = 1e-6


def rewrite_hard_sigmoid(data: bytes, *, fuse: bool) -> bytes:
    """The same model with hard sigmoids as Relu6 and a product; `fuse`: x · hardsigmoid(x) is one operator."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    view = _View(opened(data))
    changed = [view.as_relu6(relu) for relu in view.all_of(BuiltinOperator.RELU_0_TO_1)]
    changed += [view.as_hard_swish(add) for add in view.all_of(BuiltinOperator.ADD) if fuse]
    if not any(changed):
        return data
    drop_unused(view.model)
    return packed(view.model, len(data))


class _View:
    """The main subgraph of a model, for edits."""

    def __init__(self, model: ModelT) -> None:
        self.model = model
        self.graph = model.subgraphs[0]

    def all_of(self, code: int) -> list[OperatorT]:
        """Operators of a kind, as they stand now."""
        return [op for op in self.graph.operators if self._code(op) == code]

    def as_relu6(self, relu: OperatorT) -> bool:
        """min(max(x / 6 + .5, 0), 1) becomes min(max(x + 3, 0), 6) / 6; whether it was one."""
        from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator

        add = self._maker(relu.inputs[0], BuiltinOperator.ADD)
        scaled = self._beside(add, HALF)
        mul = self._maker(scaled, BuiltinOperator.MUL)
        x = self._beside(mul, SIXTH)
        if add is None or mul is None or x is None:
            return False
        sixth = next(int(index) for index in mul.inputs if index != x)
        add.inputs = [x, self._like(sixth, THREE)]
        add.builtinOptions.fusedActivationFunction = ActivationFunctionType.RELU6
        mul.inputs, mul.outputs = [int(add.outputs[0]), sixth], relu.outputs
        self.graph.operators.remove(mul)
        self.graph.operators[self.graph.operators.index(relu)] = mul
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

    def _like(self, tensor: int, value: float) -> int:
        """A new constant of the same shape."""
        from ai_edge_litert.schema_py_generated import BufferT, TensorT

        model, old = self.model, self.graph.tensors[tensor]
        made, buffer = TensorT(), BufferT()
        size = int(np.prod(listed(old.shape), dtype=np.int64))
        buffer.data = np.frombuffer(np.full(size, value, np.float32).tobytes(), np.uint8)
        model.buffers.append(buffer)
        made.name, made.shape, made.type = bytes(old.name) + b"_three", old.shape, old.type
        made.buffer = len(model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1


def _activation(op: OperatorT) -> int:
    return int(getattr(op.builtinOptions, "fusedActivationFunction", 0))
