"""The LiteRT interpreter: one batch in, one batch out, in the file's own layout and types."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpipe_litert.options import Kernels

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

Array = NDArray[np.generic]


@contextmanager
def quiet() -> Iterator[None]:
    """Without LiteRT's warning about readable intermediates."""
    # `preserve_all_tensors` warns that it is for debugging; comparing intermediates is what we want it for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_interpreter(
    path: Path, *, threads: int = 1, kernels: Kernels = "xnnpack", keep_all: bool = False
) -> Interpreter:
    """An interpreter with its tensors allocated; `keep_all` keeps intermediates readable.

    Raises:
        RuntimeError: the file cannot be loaded or allocated.
        ValueError: the file is not a `.tflite`.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN if kernels == "xnnpack" else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with quiet():
        interpreter = Interpreter(
            str(path),
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=keep_all,
        )
        interpreter.allocate_tensors()
    return interpreter


def invoke(interpreter: Interpreter, inputs: tuple[Array, ...], *, reset: bool = True) -> tuple[Array, ...]:
    """Outputs in the file's order, copied; inputs are resized to what they are given.

    `reset` forgets the run before; an interpreter that keeps intermediates cannot, and has to be a new one.

    Raises:
        RuntimeError: the shapes cannot be allocated.
    """
    details = interpreter.get_input_details()
    resized = False
    for detail, array in zip(details, inputs, strict=True):
        if tuple(detail["shape"]) != array.shape:
            interpreter.resize_tensor_input(detail["index"], array.shape)
            resized = True
    if resized:
        interpreter.allocate_tensors()
    for detail, array in zip(details, inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    if reset:
        run_afresh(interpreter)
    else:
        interpreter.invoke()
    return tuple(interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details())


def run_afresh(interpreter: Interpreter) -> None:
    """One run that knows of none before it: a recurrent operator would go on from the row before."""
    interpreter.reset_all_variables()
    interpreter.invoke()


def refused_by_kernel(reason: str) -> bool:
    """Whether LiteRT's message is about the file; XNNPACK's says the same where it gets no memory."""
    found = re.search(r"lacks data|\((?!TfLiteXNNPackDelegate)\w+\) failed to (prepare|invoke)", reason)
    return found is not None
