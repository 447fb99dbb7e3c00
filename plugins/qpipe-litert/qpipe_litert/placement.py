"""Which operators run as integer kernels, in XNNPACK or outside it: read from the opened interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from qpipe.records.engine import Fact, FloatNode, NodeKernel, Placement
from qpipe_litert.flatbuffer import FlatModel, FlatOp, read_flatbuffer
from qpipe_litert.interpreter import open_interpreter
from qpipe_litert.operators import MOVING
from qpipe_litert.options import Kernels
from qpipe_litert.quantize import LeftInFloat

_LOW = ("int8", "uint8", "int16", "int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegated:
    """Operators (by position) that a delegate took over, and in how many parts."""

    ops: frozenset[int]
    parts: int


def place(
    path: Path,
    kernels: Kernels,
    left: tuple[LeftInFloat, ...] = (),
    names: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> tuple[Placement, tuple[Fact, ...]]:
    """Placement of every computing operator, and the share of all operators that XNNPACK runs.

    `names` are the ONNX tensors that a tensor of the file stands for: nodes are told by them.
    """
    flat = read_flatbuffer(path)
    taken = delegated(path, flat) if kernels == "xnnpack" else Delegated(ops=frozenset(), parts=0)
    computing = [(at, op) for at, op in enumerate(flat.ops) if computes(flat, op)]
    low = [at for at, op in computing if precision(flat, op) != "float32"]
    outside = [at for at, _ in computing if kernels == "xnnpack" and at not in taken.ops]
    float_nodes = tuple(float_node(flat, op, left) for at, op in computing if at not in low)
    share = len(taken.ops) / max(len(flat.ops), 1)
    note = f"XNNPACK runs {len(taken.ops)} of {len(flat.ops)} operators in {taken.parts} parts"
    placement = Placement(
        integer=len(low),
        float=len(computing) - len(low),
        elsewhere=len(outside),
        left_in_float=float_nodes,
        kernels=tuple(sorted(_kernels(flat, taken).items())),
        notes=(
            note,
            *(f"outside XNNPACK: {_name(flat, flat.ops[at])}" for at in outside),
            *(f"quantized at run time: {op.op} {op.output} ({op.reason})" for op in left if op.dynamic),
        ),
        nodes=tuple(
            NodeKernel(node=name, kernel=_kernel(flat, at, taken))
            for at, op in enumerate(flat.ops)
            if op.outputs
            for name in names.get(_name(flat, op), ())
        ),
    )
    return placement, (Fact(name="xnnpack_share", value=share, unit="share", kind="measured"),)


def computes(flat: FlatModel, op: FlatOp) -> bool:
    """Whether an operator computes on data; arithmetic on shapes is ADD and MUL too, on wider integers."""
    return op.name not in MOVING and bool(op.outputs) and flat.tensors[op.outputs[0]].dtype in (*_LOW, "float32")


def precision(flat: FlatModel, op: FlatOp) -> str:
    """Narrowest type that the kernel takes: of its output, else of its weights (dynamic).

    Weights that a DEQUANTIZE widens before it (float16, weight-only) are float32 to the kernel.
    """
    made = flat.tensors[op.outputs[0]].dtype if op.outputs else "float32"
    if made in _LOW:
        return made
    weights = [flat.tensors[index] for index in op.inputs[1:] if index >= 0]
    return next((w.dtype for w in weights if w.constant and w.dtype in _LOW), made)


def float_node(flat: FlatModel, op: FlatOp, left: Iterable[LeftInFloat]) -> FloatNode:
    """An operator that computes in float, and why."""
    name = _name(flat, op)
    told = next((one.reason for one in left if one.output == name), "")
    reason = told or _widened(flat, op) or "not asked to be quantized, or no integer kernel"
    return FloatNode(name=name, op=op.name, reason=reason)


def _widened(flat: FlatModel, op: FlatOp) -> str:
    """In words, how the weights of a float operator are stored; empty where that is float32."""
    makers = {index: one for one in flat.ops if one.name == "DEQUANTIZE" for index in one.outputs}
    stored = (flat.tensors[makers[index].inputs[0]] for index in op.inputs[1:] if index in makers)
    kind = next((tensor.dtype for tensor in stored if tensor.constant), "")
    return f"its weights are stored in {kind} and read as float32" if kind else ""


def delegated(path: Path, flat: FlatModel) -> Delegated:
    """What XNNPACK took: the interpreter appends a DELEGATE operator per part, with the part's borders."""
    details = open_interpreter(path)._get_ops_details()
    parts = [op for op in details if op["op_name"] == "DELEGATE"]
    maker = {index: at for at, op in enumerate(flat.ops) for index in op.outputs}
    taken: set[int] = set()
    for part in parts:
        borders, waiting = {int(i) for i in part["inputs"]}, [int(i) for i in part["outputs"]]
        while waiting:
            index = waiting.pop()
            at = maker.get(index)
            if index not in borders and at is not None and at not in taken:
                taken.add(at)
                waiting.extend(flat.ops[at].inputs)
    return Delegated(ops=frozenset(taken), parts=len(parts))


def _name(flat: FlatModel, op: FlatOp) -> str:
    return flat.tensors[op.outputs[0]].name


def _kernels(flat: FlatModel, taken: Delegated) -> Counter[str]:
    return Counter(_kernel(flat, at, taken) for at in range(len(flat.ops)))


def _kernel(flat: FlatModel, at: int, taken: Delegated) -> str:
    op = flat.ops[at]
    return f"{'xnnpack' if at in taken.ops else 'builtin'} {op.name} {precision(flat, op)}"
