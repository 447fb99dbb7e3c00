"""The tflite-micro interpreter: its arena, its operators, its outputs."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from qpipe_litert.flatbuffer import FlatModel, FlatOp, flat_model

from qpipe.errors import BuildError, RefusedError

if TYPE_CHECKING:
    from tflite_micro.runtime import Interpreter

Array = NDArray[np.generic]
T = TypeVar("T")
_STEP_BYTES = 16
"""tflite-micro aligns everything in the arena to 16 bytes."""
_LARGEST_BYTES = 256 * 2**20
_NAMED = 3
_INSTEAD = {
    "GELU": ": by HardSwish or Relu, and train on, or by x · Sigmoid(1.702 x), which is close to it",
    "TOPK_V2": ": end it before TopK, and choose in the application",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What C++ code wrote to both streams, and how it ended where it did not end well."""

    text: str
    error: str


def open_micro(data: bytes, arena_bytes: int) -> Interpreter:
    """An interpreter with an arena of that size.

    Raises:
        RuntimeError: the arena is too small, or an operator is missing; the reason is on stderr.
    """
    from tflite_micro import runtime

    return runtime.Interpreter.from_bytes(data, arena_size=arena_bytes)


def run_micro(interpreter: Interpreter, inputs: tuple[Array, ...], outputs: int) -> tuple[Array, ...]:
    """One inference from a fresh state; arrays in the file's own layout and types."""
    interpreter.reset()  # a recurrent operator would go on from the row before
    for position, array in enumerate(inputs):
        interpreter.set_input(array, position)
    interpreter.invoke()
    return tuple(np.array(interpreter.get_output(position)) for position in range(outputs))


def smallest_arena(data: bytes, names: Mapping[str, tuple[str, ...]] = MappingProxyType({})) -> int:
    """Bytes of the smallest arena in which the model allocates and runs, by bisection.

    Of the reference kernels, and an upper bound for theirs: pointers are 64 bits wide here. A vendor's kernels
    (CMSIS-NN) take scratch buffers beside. `names` are the ONNX tensors that a tensor of the file stands for: refusals
    tell by them what an operator makes.

    Raises:
        BuildError: an operator is missing in tflite-micro, or no arena is large enough.
    """
    high = max(4096, len(data) // 4)
    said = _attempt(data, high)
    while said.error:
        _refuse_missing_operator(said, data, names)
        if high > _LARGEST_BYTES:
            _refuse_any_arena(said, high, data, names)
        high *= 2
        said = _attempt(data, high)
    low = 0
    while high - low > _STEP_BYTES:
        middle = (low + high) // 2 // _STEP_BYTES * _STEP_BYTES
        if middle in (low, high):
            break
        low, high = (middle, high) if _attempt(data, middle).error else (low, middle)
    return high


def allocations(data: bytes, arena_bytes: int) -> tuple[str, ...]:
    """What the interpreter says it allocated, one line each."""
    interpreter = open_micro(data, arena_bytes)
    interpreter.invoke()
    _, text = captured(interpreter.print_allocations)
    return tuple(re.sub(r"^\[\w+\] ", "", line) for line in text.splitlines() if "Allocator]" in line)


def captured(call: Callable[[], T]) -> tuple[T, str]:
    """The result of a call and all that it wrote to file descriptors 1 and 2, as C++ code does."""
    with tempfile.TemporaryFile() as scratch:
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(scratch.fileno(), 1)
            os.dup2(scratch.fileno(), 2)
            result = call()
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
        scratch.seek(0)
        return result, scratch.read().decode("utf-8", errors="replace")


def _attempt(data: bytes, arena_bytes: int) -> Said:
    from tflite_micro import runtime  # noqa: F401 - once, and not in every child

    return apart(lambda: open_micro(data, arena_bytes).invoke())


def apart(call: Callable[[], None]) -> Said:
    """What a call says and how it ends, in a forked process: at unlucky sizes of the arena the library crashes."""
    with tempfile.TemporaryFile() as scratch:
        pid = os.fork()
        if pid == 0:
            _call_and_end(call, scratch.fileno())
        _, status = os.waitpid(pid, 0)
        scratch.seek(0)
        text = scratch.read().decode("utf-8", errors="replace")
    if os.WIFSIGNALED(status):
        return Said(text=text, error=f"crashed with {signal.Signals(os.WTERMSIG(status)).name}")
    return Said(text=text, error="failed" if os.WEXITSTATUS(status) else "")


def _call_and_end(call: Callable[[], None], output: int) -> NoReturn:
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        call()
        code = 0
    except Exception as problem:  # noqa: BLE001  (the parent is told of it in text)
        os.write(output, f"{problem}\n".encode())
    finally:
        os._exit(code)


def _refuse_missing_operator(said: Said, data: bytes, names: Mapping[str, tuple[str, ...]]) -> None:
    found = re.search(r"Didn't find op for builtin opcode '(\w+)'", said.text)
    if found:
        flat = flat_model(data)
        made = [_made(flat, op, names) for op in flat.ops if op.name == found[1]]
        named = ", ".join(made[:_NAMED]) + (f" and {len(made) - _NAMED} more" if len(made) > _NAMED else "")
        raise RefusedError(
            f"tflite-micro has no operator {found[1]}, which makes {named or 'what the model needs'}",
            hint=f"replace these nodes in the model{_INSTEAD.get(found[1], '')}",
        )


def _refuse_any_arena(said: Said, arena_bytes: int, data: bytes, names: Mapping[str, tuple[str, ...]]) -> None:
    """What fails in an arena of any size is a kernel that does not take its tensors, or a model beyond all arenas."""
    if "Requested: " in said.text:  # the library ran out of its arena; this machine gave it
        raise RefusedError(
            f"tflite-micro needs an arena of more than {arena_bytes // 2**20} MiB for this model",
            hint="a smaller model, or smaller inputs",
        )
    found = re.search(r"Node (\w+) \(number (\d+)\) failed to (?:prepare|invoke)", said.text)
    if found is None:
        raise BuildError(
            f"tflite-micro cannot allocate the model in {arena_bytes // 2**20} MiB: {_last_line(said.text, said.error)}"
        )
    half = found[1] == "DEQUANTIZE"  # what a float16 weight stands behind
    reason = _last_line(said.text[: found.start()], "it gives no reason")
    flat, at = flat_model(data), int(found[2])
    made = f", which makes {_made(flat, flat.ops[at], names)}," if at < len(flat.ops) else ""
    raise RefusedError(
        f"tflite-micro's {found[1]}{made} does not take these types or shapes: {reason}",
        hint="float16 weights have no kernel there: use recipe int8" if half else "replace this node in the model",
    )


def _made(flat: FlatModel, op: FlatOp, names: Mapping[str, tuple[str, ...]]) -> str:
    """What an operator makes, by its ONNX name where there is one."""
    name = flat.tensors[op.outputs[0]].name
    return names.get(name, (name,))[-1]


def _last_line(text: str, otherwise: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else otherwise)[:200]
