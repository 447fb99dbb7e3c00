"""What both microcontroller backends build: an inlined `.tflite` that tflite-micro and LiteRT agree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qpipe_litert.build import MODEL, build_tflite
from qpipe_litert.flatbuffer import FlatModel, FlatOp, read_flatbuffer
from qpipe_litert.flatbuffer_edit import inline_buffers
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.layout import Layout
from qpipe_litert.options import Options
from qpipe_litert.placement import COMPUTING, precision
from qpipe_litert.quantize import LeftInFloat

from qpipe.errors import BuildError
from qpipe.plugins.backend import Progress
from qpipe.records.engine import FloatNode, Placement, Prepared
from qpipe_mcu.micro import open_micro, run_micro, smallest_arena

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


def build_micro(prepared: Prepared, workdir: Path, progress: Progress) -> MicroFile:
    """A one-row `.tflite` with int8 inputs and outputs, checked against LiteRT.

    Raises:
        BuildError: a tool refused, an operator is missing in tflite-micro, or the two interpreters disagree.
    """
    made = build_tflite(prepared, workdir, Options(io="int8", batch="one", unranged="float"), progress)
    data = inline_buffers(made.path.read_bytes())
    (workdir / MODEL).write_bytes(data)
    progress.step("find the smallest arena")
    arena_bytes = smallest_arena(data)
    require_parity(workdir / MODEL, data, arena_bytes)
    return MicroFile(data=data, layout=made.layout, arena_bytes=arena_bytes, left=made.left, notes=made.notes)


def require_parity(path: Path, data: bytes, arena_bytes: int, rows: int = 4) -> None:
    """Compare tflite-micro with LiteRT's reference kernels on random rows.

    Buffers outside the flatbuffer make tflite-micro read garbage without an error; this is where that shows.

    Raises:
        BuildError: outputs differ by more than rounding.
    """
    reference, micro = open_interpreter(path, kernels="reference"), open_micro(data, arena_bytes)
    rng = np.random.default_rng(0)
    count = len(reference.get_output_details())
    for _ in range(rows):
        inputs = tuple(_random(rng, tuple(d["shape"]), d["dtype"]) for d in reference.get_input_details())
        wanted, found = invoke(reference, inputs), run_micro(micro, inputs, count)
        for a, b in zip(wanted, found, strict=True):
            limit = PARITY_STEPS if a.dtype.kind in "iu" else 1e-3 * float(np.abs(a.astype(np.float64)).max()) + 1e-6
            worst = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
            if not worst <= limit:
                raise BuildError(f"tflite-micro and LiteRT disagree by {worst:g} on the same file (limit {limit:g})")


def place_micro(path: Path, left: tuple[LeftInFloat, ...], notes: tuple[str, ...]) -> Placement:
    """Which computing operators run as integer kernels of tflite-micro."""
    flat = read_flatbuffer(path)
    computing = [op for op in flat.ops if op.name in COMPUTING]
    floats = [op for op in computing if precision(flat, op) == "float32"]
    reasons = {op.output: op.reason for op in left}
    counts: dict[str, int] = {}
    for op in flat.ops:
        kernel = f"tflm {op.name} {precision(flat, op)}"
        counts[kernel] = counts.get(kernel, 0) + 1
    return Placement(
        integer=len(computing) - len(floats),
        float=len(floats),
        elsewhere=0,
        left_in_float=tuple(_left(flat, op, reasons) for op in floats),
        kernels=tuple(sorted(counts.items())),
        notes=notes,
    )


def _left(flat: FlatModel, op: FlatOp, reasons: dict[str, str]) -> FloatNode:
    name = flat.tensors[op.outputs[0]].name
    return FloatNode(name=name, op=op.name, reason=reasons.get(name, "not asked to be quantized, or no integer kernel"))


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
    if np.issubdtype(dtype, np.integer):
        ends = np.iinfo(np.dtype(dtype).name)
        low, high = (ends.min, ends.max) if np.dtype(dtype).itemsize < 4 else (0, 1)
        return rng.integers(low, high, shape, endpoint=True).astype(dtype)
    return rng.normal(size=shape).astype(dtype)
