"""ONNX to a float `.tflite`, trusted only after it was loaded, run, and compared with onnxruntime."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from qpipe.errors import BuildError, RefusedError
from qpipe.records.engine import Prepared
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_litert.flatbuffer_edit import free_batch, fuse_relu, matmul_as_dense
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.kept import converted_once
from qpipe_litert.layout import Layout, close, input_layouts, output_layout, to_file
from qpipe_litert.onnx_graph import fix_shapes, fold, load_float, mixed_outputs, run_reference, widened
from qpipe_litert.onnx_rewrite import strided_slices_as_pools
from qpipe_litert.options import Options
from qpipe_litert.probe import probe_inputs, probe_shape
from qpipe_litert.tools import ToolEnvironment

Array = NDArray[np.generic]
CONVERTED = "converted.tflite"
_TIMEOUT_S = 300.0
_SEVERAL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A float `.tflite` that computes what the ONNX graph computes."""

    path: Path
    graph: onnx.ModelProto
    half: bool
    """The ONNX graph had float16 weights."""
    layout: Layout
    notes: tuple[str, ...]


def convert(prepared: Prepared, workdir: Path, options: Options, tool: ToolEnvironment) -> Converted:
    """Convert the float graph and compare it with onnxruntime on a probe batch.

    The converter gets one row of a folded graph: with a free batch it writes shape arithmetic into the file. Where the
    model's batch is free, the file is made free again afterwards, and that too is checked by running it. A graph that
    does not come out right is converted once more as given.

    Raises:
        BuildError: the converter failed, left an operator that LiteRT does not have, or changed what is computed.
    """
    model, half = load_float(prepared.graph.path)
    shapes = {spec.name: probe_shape(prepared, spec) for spec in prepared.signature.inputs}
    model = fix_shapes(model, shapes)
    free = any(shape and shape[0] is None for shape in shapes.values()) and options.batch == "free"
    one_row = fix_shapes(
        model, {name: tuple(1 if dim is None else dim for dim in shape) for name, shape in shapes.items()}
    )
    keep = tuple(shapes) if options.layout == "as-given" else ()
    first: BuildError | None = None
    for name, graph in (("folded", strided_slices_as_pools(fold(one_row, workdir))), ("as given", one_row)):
        try:
            data = graph.SerializeToString(deterministic=True)
            path = workdir / CONVERTED
            path.write_bytes(converted_once(data, keep, partial(_convert_now, graph, workdir, tool, keep)))
            refuse_custom(path)
            path.write_bytes(matmul_as_dense(fuse_relu(path.read_bytes())))
            layout, notes = find_layout(prepared, model, path, free=free)
        except BuildError as problem:
            if first is not None or isinstance(problem, UnknownOperatorError):
                raise first or problem from None
            first = problem
            continue
        if not layout.any_batch:
            notes = (*notes, *_mixing(prepared, model, shapes))
        if first is not None:
            notes = (*notes, f"converted {name}: the folded graph came out wrong ({first.message})")
        return Converted(path=path, graph=model, half=half, layout=layout, notes=notes)
    raise first or BuildError("no graph was converted")


def _mixing(prepared: Prepared, model: onnx.ModelProto, shapes: Mapping[str, tuple[int | None, ...]]) -> Iterator[str]:
    """A file of one row computes row by row what the model may compute from several."""
    if not all(shape and shape[0] is None for shape in shapes.values()):
        return
    if names := mixed_outputs(model, widened(probe_inputs(prepared, _SEVERAL)), close):
        yield (
            f"the model's answer to a row depends on the rows beside it in {', '.join(names)}: this engine computes "
            "each row alone, which gives other numbers"
        )


def _convert_now(model: onnx.ModelProto, workdir: Path, tool: ToolEnvironment, keep: tuple[str, ...]) -> bytes:
    return call_converter(model, workdir, tool, keep).read_bytes()


class UnknownOperatorError(RefusedError):
    """The graph has an operator that LiteRT does not have: another conversion would not help."""


def call_converter(model: onnx.ModelProto, workdir: Path, tool: ToolEnvironment, keep: tuple[str, ...] = ()) -> Path:
    """Run onnx2tf's TensorFlow-free path in its own environment; the file's correctness is not checked here.

    Raises:
        BuildError: it failed, ran too long, or wrote no file.
    """
    source, made = workdir / "float.onnx", workdir / "onnx2tf"
    shutil.rmtree(made, ignore_errors=True)  # a file of an earlier try must not pass for this one's
    onnx.save(model, source)
    code = "from onnx2tf.onnx2tf import main; main()"
    command = [str(tool.python), "-c", code, "-i", str(source), "-o", str(made), "-tb", "flatbuffer_direct", "-n"]
    if keep:
        command += ["-kat", *keep]
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd=workdir, env=clean
        )
    except subprocess.TimeoutExpired as problem:
        raise BuildError(f"onnx2tf ran longer than {_TIMEOUT_S:.0f} s") from problem
    path = made / "float_float32.tflite"
    if done.returncode != 0 or not path.is_file():
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        last = lines[-1][-300:] if lines else "no output"
        raise BuildError(f"onnx2tf failed (exit {done.returncode}): {last}")
    return path


def refuse_custom(path: Path) -> None:
    """Refuse operators that the converter did not know: it exits 0 and LiteRT fails only at load.

    Raises:
        BuildError: names the operators and where they stand.
    """
    flat = read_flatbuffer(path)
    custom = [f"{op.name} ({flat.tensors[op.outputs[0]].name})" for op in flat.ops if op.custom]
    if custom:
        raise UnknownOperatorError(
            f"LiteRT has no operator for: {', '.join(custom[:5])}",
            hint="replace these nodes in the model; onnx2tf passes what it does not know through as custom operators",
        )


def find_layout(
    prepared: Prepared, model: onnx.ModelProto, path: Path, *, free: bool
) -> tuple[Layout, tuple[str, ...]]:
    """The permutations under which the file computes what the ONNX graph computes, on two probe rows or on one.

    Raises:
        BuildError: the file cannot be allocated or run, or its outputs differ.
    """
    notes: tuple[str, ...] = ()
    if free:
        fixed = path.read_bytes()
        path.write_bytes(free_batch(fixed))
        found = _try_layouts(path, prepared, model, 2)
        if isinstance(found, Layout):
            return found, ()
        path.write_bytes(fixed)
        notes = (f"the converted file takes one row at a time ({found})",)
    found = _try_layouts(path, prepared, model, 1)
    if isinstance(found, Layout):
        return replace(found, any_batch=False), notes
    raise BuildError(
        f"the converted model is not the float model: {found}", hint="the converter exited 0; report it upstream"
    )


def _try_layouts(path: Path, prepared: Prepared, model: onnx.ModelProto, rows: int) -> Layout | str:
    """The layout under which outputs agree, or why there is none."""
    inputs = widened(probe_inputs(prepared, rows))
    reference = run_reference(model, inputs)
    try:
        details = open_interpreter(path).get_input_details()
    except (RuntimeError, ValueError) as problem:
        raise BuildError(f"the converted model cannot be loaded: {_one_line(problem)}") from problem
    shapes = [tuple(int(dim) for dim in detail["shape"]) for detail in details]
    reason = f"no layout leads from inputs {[array.shape for array in inputs.values()]} to {shapes}"
    names = [detail["name"] for detail in details]
    for ports in input_layouts(tuple(inputs), [array.shape for array in inputs.values()], names, shapes):
        ordered = sorted(ports, key=lambda port: port.position)
        arrays = tuple(to_file(p, inputs[p.name]).astype(d["dtype"]) for p, d in zip(ordered, details, strict=True))
        try:
            outputs = invoke(open_interpreter(path), arrays)
        except (RuntimeError, ValueError) as problem:
            reason = _one_line(problem)
            continue
        found = output_layout(reference, outputs)
        if found is not None:
            return Layout(inputs=ports, outputs=found, any_batch=True)
        reason = "outputs differ from onnxruntime's"
    return reason


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
