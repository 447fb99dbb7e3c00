"""What both microcontroller backends build: an inlined `.tflite` that tflite-micro and LiteRT agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from qpipe_litert.build import MODEL, build_tflite
from qpipe_litert.comparing import compare_engine
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_litert.flatbuffer_edit import inline_buffers
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.layout import Layout
from qpipe_litert.options import Options
from qpipe_litert.placement import computes, float_node, precision
from qpipe_litert.quantize import LeftInFloat

from qpipe.errors import RefusedError
from qpipe.measure.probe import FLOAT_DB, QUANTIZED_DB, agreements
from qpipe.plugins.backend import Progress
from qpipe.records.engine import NodeKernel, Placement, Prepared
from qpipe_mcu.known_ops import in_known_forms
from qpipe_mcu.micro import open_micro, run_micro, smallest_arena
from qpipe_mcu.session import open_engine

Array = NDArray[np.generic]
PARITY_STEPS = 2
"""Largest difference between tflite-micro and LiteRT in quantization steps; other kernels round differently by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroFile:
    """`model.tflite` with everything inside, and the arena that it needs."""

    data: bytes
    layout: Layout
    arena_bytes: int
    left: tuple[LeftInFloat, ...]
    notes: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    """ONNX tensors that each tensor of the file stands for, by its name."""


def build_micro(prepared: Prepared, workdir: Path, progress: Progress) -> MicroFile:
    """A one-row `.tflite` with int8 inputs and outputs, compared with LiteRT and with onnxruntime.

    Raises:
        BuildError: a tool refused, an operator is missing in tflite-micro, or what it computes is something else.
    """
    made = build_tflite(
        prepared, workdir, Options(kernels="reference", io="int8", batch="one", unranged="float"), progress
    )
    data = in_known_forms(inline_buffers(made.path.read_bytes()))
    (workdir / MODEL).write_bytes(data)
    progress.step("find the smallest arena")
    arena_bytes = smallest_arena(data, made.names)
    require_parity(workdir / MODEL, data, arena_bytes)
    progress.step("compare tflite-micro with onnxruntime")
    session = open_engine(data, arena_bytes, made.layout, prepared.signature)
    notes = (*made.notes, compare_engine(prepared, session, rows=1, runtime="tflite-micro"))
    return MicroFile(
        data=data, layout=made.layout, arena_bytes=arena_bytes, left=made.left, notes=notes, names=made.names
    )


def require_parity(path: Path, data: bytes, arena_bytes: int, rows: int = 4) -> None:
    """Compare tflite-micro with LiteRT's reference kernels on random rows.

    Buffers outside the flatbuffer make tflite-micro read garbage without an error; this is where that shows.

    Raises:
        RefusedError: outputs differ by more than rounding.
    """
    reference, micro = open_interpreter(path, kernels="reference"), open_micro(data, arena_bytes)
    integers = any(np.dtype(detail["dtype"]).itemsize < 4 for detail in reference.get_tensor_details())
    rng = np.random.default_rng(0)
    zeros = [int(detail["quantization"][1]) for detail in reference.get_output_details()]
    for _ in range(rows):
        inputs = tuple(_random(rng, tuple(d["shape"]), d["dtype"]) for d in reference.get_input_details())
        outputs = invoke(reference, inputs), run_micro(micro, inputs, len(zeros))
        for a, b, zero in zip(*outputs, zeros, strict=True):
            refuse_other(a, b, integers=integers, zero=zero)


def refuse_other(wanted: Array, found: Array, *, integers: bool, zero: int = 0) -> None:
    """Refuse what rounding does not explain: steps of an integer output, decibels of a float one or of many steps.

    Args:
        wanted: LiteRT's output.
        found: tflite-micro's.
        integers: whether the file computes on integers before a float output: a step there is no fixed part of it.
        zero: the zero point of an integer output.

    Raises:
        RefusedError: they differ by more.
    """
    least = QUANTIZED_DB if integers else FLOAT_DB
    (agreed,) = agreements({"": wanted.astype(np.float64) - zero}, {"": found.astype(np.float64) - zero})
    told, fine = f"({agreed}; at least {least:.0f} dB)", agreed.db >= least
    if wanted.dtype.kind in "iu":
        worst = float(np.abs(wanted.astype(np.int64) - found.astype(np.int64)).max())
        told, fine = f"by {worst:g} steps (limit {PARITY_STEPS}) {told}", fine or worst <= PARITY_STEPS
    if not fine:
        raise RefusedError(f"tflite-micro and LiteRT disagree on the same file {told}")


def place_micro(
    path: Path,
    left: tuple[LeftInFloat, ...],
    notes: tuple[str, ...],
    names: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Placement:
    """Which computing operators run as integer kernels of tflite-micro.

    `names` are the ONNX tensors that a tensor of the file stands for: nodes are told by them.
    """
    flat = read_flatbuffer(path)
    computing = [op for op in flat.ops if computes(flat, op)]
    floats = [op for op in computing if precision(flat, op) == "float32"]
    kernels = [f"tflm {op.name} {precision(flat, op)}" for op in flat.ops]
    return Placement(
        integer=len(computing) - len(floats),
        float=len(floats),
        elsewhere=0,
        left_in_float=tuple(float_node(flat, op, left) for op in floats),
        kernels=tuple(sorted(Counter(kernels).items())),
        notes=notes,
        nodes=tuple(
            NodeKernel(node=name, kernel=kernel)
            for op, kernel in zip(flat.ops, kernels, strict=True)
            for output in op.outputs[:1]
            for name in names.get(flat.tensors[output].name, ())
        ),
    )


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
    if np.issubdtype(dtype, np.integer):
        ends = np.iinfo(np.dtype(dtype).name)
        low, high = (ends.min, ends.max) if np.dtype(dtype).itemsize < 4 else (0, 1)
        return rng.integers(low, high, shape, endpoint=True).astype(dtype)
    return rng.normal(size=shape).astype(dtype)
