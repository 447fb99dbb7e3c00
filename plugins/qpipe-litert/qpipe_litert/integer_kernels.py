"""Integer kernels that the file's quantizer does not know of: it leaves operators between DEQUANTIZE and QUANTIZE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpipe_litert.flatbuffer import builtin, listed
from qpipe_litert.flatbuffer_edit import code_index, drop_unused, held, opened, packed
from qpipe_litert.operators import INTEGER_KERNELS, KEEPS_SCALE
from qpipe_litert.options import Kernels

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, TensorT


def run_on_integers(data: bytes, kernels: Kernels) -> bytes:
    """The same model with such operators on the integers around them."""
    view, versions = _Quantized(opened(data)), INTEGER_KERNELS[kernels]
    changed = [view.on_integers(op, versions[name]) for op, name in view.all_of(*versions)]
    if kernels == "reference":
        changed += [view.read_pixels(op) for op, _ in view.all_of("CAST")]
        changed += [view.find_largest(op) for op, _ in view.all_of("ARG_MAX", "ARG_MIN")]
    if not any(changed):
        return data
    drop_unused(view.model)
    return packed(view.model, len(data))


class _Quantized:
    """The main subgraph of a quantized model, for edits."""

    def __init__(self, model: ModelT) -> None:
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        self.model = model
        self.graph = model.subgraphs[0]
        self._names: dict[int, str] = {
            value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)
        }

    def all_of(self, *names: str) -> list[tuple[OperatorT, str]]:
        """Operators of these kinds, as they stand now."""
        return [(op, self._name(op)) for op in self.graph.operators if self._name(op) in names]

    def on_integers(self, op: OperatorT, version: int) -> bool:
        """DEQUANTIZE, the operator, QUANTIZE become the operator; whether they stood there."""
        before, after = self._before(op), self._after(op)
        if before is None or after is None:
            return False
        taken, given = self._tensor(before.inputs[0]), self._tensor(after.outputs[0])
        if self._name(op) in KEEPS_SCALE and not _alike(taken, given):
            return False
        slopes = [self._as_slopes(int(index)) for index in listed(op.inputs)[1:]]
        op.opcodeIndex = code_index(self.model, self.model.operatorCodes[op.opcodeIndex].builtinCode, version)
        op.inputs, op.outputs = [int(before.inputs[0]), *slopes], after.outputs
        self.graph.operators.remove(after)
        self._drop_unread(before)
        return True

    def read_pixels(self, cast: OperatorT) -> bool:
        """CAST of uint8, QUANTIZE become QUANTIZE of a tensor with one step to a level; whether they stood there."""
        from ai_edge_litert.schema_py_generated import QuantizationParametersT, TensorType

        after, pixels = self._after(cast), self._tensor(cast.inputs[0])
        if after is None or pixels.type != TensorType.UINT8:
            return False
        pixels.quantization = QuantizationParametersT()
        pixels.quantization.scale, pixels.quantization.zeroPoint = [1.0], [0]
        after.inputs = cast.inputs
        self.graph.operators.remove(cast)
        return True

    def find_largest(self, op: OperatorT) -> bool:
        """The largest integer stands where the largest number does."""
        before = self._before(op)
        if before is None:
            return False
        op.inputs = [int(before.inputs[0]), *listed(op.inputs)[1:]]
        self._drop_unread(before)
        return True

    def _as_slopes(self, index: int) -> int:
        """A constant float operand in symmetric int8. Source: LiteRT 8-bit quantization specification."""
        from ai_edge_litert.schema_py_generated import BufferT, QuantizationParametersT, TensorT, TensorType

        old, made, buffer = self._tensor(index), TensorT(), BufferT()
        values = held(self.model.buffers[old.buffer], np.float32)
        scale = float(np.abs(values).max()) / 127 or 1.0
        buffer.data = np.round(values / scale).astype(np.int8).view(np.uint8)
        self.model.buffers.append(buffer)
        made.name, made.shape, made.type = bytes(old.name) + b"_int8", old.shape, TensorType.INT8
        made.buffer, made.quantization = len(self.model.buffers) - 1, QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def _before(self, op: OperatorT) -> OperatorT | None:
        """The DEQUANTIZE of int8 that this operator reads."""
        made = self._only([one for one in self.graph.operators if op.inputs[0] in listed(one.outputs)], "DEQUANTIZE")
        return made if made is not None and self._is_int8(made.inputs[0]) else None

    def _after(self, op: OperatorT) -> OperatorT | None:
        """The QUANTIZE to int8 that alone reads what this operator makes."""
        made = int(op.outputs[0])
        reader = None if made in listed(self.graph.outputs) else self._only(self._readers(made), "QUANTIZE")
        return reader if reader is not None and self._is_int8(reader.outputs[0]) else None

    def _only(self, ops: list[OperatorT], name: str) -> OperatorT | None:
        return ops[0] if len(ops) == 1 and self._name(ops[0]) == name else None

    def _drop_unread(self, op: OperatorT) -> None:
        made = int(op.outputs[0])
        if not self._readers(made) and made not in listed(self.graph.outputs):
            self.graph.operators.remove(op)

    def _readers(self, index: int) -> list[OperatorT]:
        return [op for op in self.graph.operators if index in listed(op.inputs)]

    def _tensor(self, index: float) -> TensorT:
        return self.graph.tensors[int(index)]

    def _is_int8(self, index: float) -> bool:
        from ai_edge_litert.schema_py_generated import TensorType

        return bool(self._tensor(index).type == TensorType.INT8)

    def _name(self, op: OperatorT) -> str:
        return self._names[builtin(self.model.operatorCodes[op.opcodeIndex])]


def _alike(one: TensorT, other: TensorT) -> bool:
    first, second = one.quantization, other.quantization
    return listed(first.scale) == listed(second.scale) and listed(first.zeroPoint) == listed(second.zeroPoint)
