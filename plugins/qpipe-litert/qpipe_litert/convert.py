"""ONNX to a float `.tflite`, trusted only after it was loaded, run, and compared with onnxruntime."""

from __future__ import annotations

import os
import re
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
from qpipe_litert.flatbuffer_edit import free_batch, fuse_relu, fuse_transposed_bias, matmul_as_dense
from qpipe_litert.hard_swish import rewrite_hard_sigmoid
from qpipe_litert.interpreter import invoke, open_interpreter, refused_by_kernel
from qpipe_litert.kept import converted_once
from qpipe_litert.layout import Layout, close, input_layouts, output_layout, to_file
from qpipe_litert.onnx_graph import fix_shapes, fold, load_float, mixed_outputs, run_reference, widened
from qpipe_litert.onnx_rewrite import rewritten, states_read
from qpipe_litert.options import Kernels, Options
from qpipe_litert.probe import probe_inputs, probe_shape
from qpipe_litert.tools import ToolEnvironment

Array = NDArray[np.generic]
CONVERTED = "converted.tflite"
_TIMEOUT_S = 300.0
_SEVERAL = 4
_ABOUT_VALUES = (
    *("NodeValidationError", "ModelIRInvariantError", "PassInvariantError", "ValidationError", "InferenceError"),
    *("ValueError", "KeyError", "IndexError", "TypeError", "AttributeError", "AssertionError", "NotImplementedError"),
)
"""Exceptions of onnx2tf, onnx and Python that the same graph brings about each time."""


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
    for name, graph in (
        ("folded", rewritten(fold(one_row, workdir))),
        ("as given", one_row),
    ):
        try:
            data = graph.SerializeToString(deterministic=True)
            path = workdir / CONVERTED
            path.write_bytes(converted_once(data, keep, partial(_convert_now, graph, workdir, tool, keep)))
            refuse_custom(path)
            dense = matmul_as_dense(fuse_transposed_bias(fuse_relu(path.read_bytes())))
            path.write_bytes(rewrite_hard_sigmoid(dense))
            layout, notes = find_layout(prepared, model, path, free=free, kernels=options.kernels)
        except BuildError as problem:
            if first is None and not isinstance(problem, UnknownOperatorError):
                first = problem
                continue
            # A failure that may be another one at the next try is told before one that lasts.
            raise first if first is not None and problem.lasts else problem from None
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
        raise conversion_failure(done.returncode, done.stdout + done.stderr)
    return path


def conversion_failure(code: int, said: str) -> BuildError:
    """How onnx2tf ended: an exception about values lasts, one about memory, files, threads or the process does not."""
    lines = [line for line in said.splitlines() if line.strip()]
    last = lines[-1][-300:] if lines else "no output"
    raised = re.match(r"(?:\w+\.)*(\w+)(?::|$)", lines[-1]) if lines else None
    if code == 1 and raised is not None and raised[1] in _ABOUT_VALUES:
        return RefusedError(f"onnx2tf refuses this graph: {last}")
    return BuildError(f"onnx2tf failed (exit {code}): {last}")


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
    prepared: Prepared, model: onnx.ModelProto, path: Path, *, free: bool, kernels: Kernels = "xnnpack"
) -> tuple[Layout, tuple[str, ...]]:
    """The permutations under which the file computes what the ONNX graph computes, on two probe rows or on one.

    Raises:
        BuildError: the file cannot be allocated or run, or its outputs differ.
    """
    notes: tuple[str, ...] = ()
    if free:
        fixed = path.read_bytes()
        path.write_bytes(free_batch(fixed))
        found = _try_layouts(path, prepared, model, 2, kernels)
        if isinstance(found, Layout):
            return found, ()
        path.write_bytes(fixed)
        notes = (f"the converted file takes one row at a time ({found.reason})",)
    found = _try_layouts(path, prepared, model, 1, kernels)
    if isinstance(found, Layout):
        return replace(found, any_batch=False), notes
    raise BuildError(
        f"the converted model is not the float model: {found.reason}",
        hint=_state_hint(model) or "the converter exited 0; report it upstream",
        lasts=found.lasts,
    )


def _state_hint(model: onnx.ModelProto) -> str:
    states = ", ".join(states_read(model))
    return (
        f"onnx2tf goes wrong where a state is read ({states}): read steps of the first output instead" if states else ""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoLayout:
    """Why a file does not compute what its graph computes, and whether that could be otherwise at the next try."""

    reason: str
    lasts: bool


def _try_layouts(
    path: Path, prepared: Prepared, model: onnx.ModelProto, rows: int, kernels: Kernels
) -> Layout | _NoLayout:
    """The layout under which outputs agree, or why there is none."""
    inputs = widened(probe_inputs(prepared, rows))
    reference = run_reference(model, inputs)
    try:
        details = open_interpreter(path, kernels=kernels).get_input_details()
    except (RuntimeError, ValueError) as problem:
        reason = _one_line(problem)
        raise BuildError(
            f"the converted model cannot be loaded: {reason}", hint=_state_hint(model), lasts=refused_by_kernel(reason)
        ) from problem
    shapes = [tuple(int(dim) for dim in detail["shape"]) for detail in details]
    no = _NoLayout(reason=f"no layout leads from inputs {[a.shape for a in inputs.values()]} to {shapes}", lasts=True)
    names = [detail["name"] for detail in details]
    for ports in input_layouts(tuple(inputs), [array.shape for array in inputs.values()], names, shapes):
        ordered = sorted(ports, key=lambda port: port.position)
        arrays = tuple(to_file(p, inputs[p.name]).astype(d["dtype"]) for p, d in zip(ordered, details, strict=True))
        try:
            outputs = invoke(open_interpreter(path, kernels=kernels), arrays)
        except (RuntimeError, ValueError) as problem:
            reason = _one_line(problem)
            no = _NoLayout(reason=reason, lasts=refused_by_kernel(reason))
            continue
        found = output_layout(reference, outputs)
        if found is not None:
            return Layout(inputs=ports, outputs=found, any_batch=True)
        no = _NoLayout(reason="outputs differ from onnxruntime's", lasts=True)
    return no


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
